"""Changed model folders, loaded here and by sentence-transformers: the same vectors, or a refusal.

`mutations` changes every key of every JSON file of a folder and adds, removes and empties files; `models`
makes one small model of each family with the tokenizer of its class; `oracle` computes what
sentence-transformers makes of a folder, in an environment of its own; `ours` computes what llmrs makes of it.
What differs on purpose stands in `intended.json`, with its reason.
"""
