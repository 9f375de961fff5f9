"""What each family calls its tensors, in the files that Hugging Face models are published in."""

from __future__ import annotations

from dataclasses import replace

from llmrs.models.architectures import Names, Part

BERT_LAYER = "encoder.layer.{}."
BERT = Names(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
)

DISTILBERT_LAYER = "transformer.layer.{}."
DISTILBERT = Names(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    output_norm="output_layer_norm",
)

MPNET = Names(
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
    distance_bias="encoder.relative_attention_bias",
)

ALBERT_LAYER = "encoder.albert_layer_groups.{}.albert_layers.{}."
ALBERT = Names(
    projection="encoder.embedding_hidden_mapping_in",
    query="attention.query",
    key="attention.key",
    value="attention.value",
    attention_output="attention.dense",
    attention_norm="attention.LayerNorm",
    up="ffn",
    down="ffn_output",
    output_norm="full_layer_layer_norm",
)

JINA = replace(
    BERT,
    gate=Part("mlp.gated_layers", 0, 2),
    up=Part("mlp.gated_layers", 1, 2),
    down="mlp.wo",
    output_norm="mlp.layernorm",
)

MODERNBERT_LAYER = "layers.{}."
MODERNBERT = Names(
    words="embeddings.tok_embeddings",
    embedding_norm="embeddings.norm",
    attention_input_norm="attn_norm",
    query=Part("attn.Wqkv", 0, 3),
    key=Part("attn.Wqkv", 1, 3),
    value=Part("attn.Wqkv", 2, 3),
    attention_output="attn.Wo",
    feed_forward_input_norm="mlp_norm",
    gate=Part("mlp.Wi", 0, 2),
    up=Part("mlp.Wi", 1, 2),
    down="mlp.Wo",
    final_norm="final_norm",
)

NOMIC_LAYER = "encoder.layers.{}."
NOMIC = Names(
    embedding_norm="emb_ln",
    query=Part("attn.Wqkv", 0, 3),
    key=Part("attn.Wqkv", 1, 3),
    value=Part("attn.Wqkv", 2, 3),
    attention_output="attn.out_proj",
    attention_norm="norm1",
    up="mlp.fc11",
    gate="mlp.fc12",
    down="mlp.fc2",
    output_norm="norm2",
)

GTE = Names(
    query=Part("attention.qkv_proj", 0, 3),
    key=Part("attention.qkv_proj", 1, 3),
    value=Part("attention.qkv_proj", 2, 3),
    attention_output="attention.o_proj",
    attention_norm="attn_ln",
    up=Part("mlp.up_gate_proj", 0, 2),
    gate=Part("mlp.up_gate_proj", 1, 2),
    down="mlp.down_proj",
    output_norm="mlp_ln",
)

QWEN_LAYER = "layers.{}."
QWEN = Names(
    words="embed_tokens",
    embedding_norm=None,
    attention_input_norm="input_layernorm",
    query="self_attn.q_proj",
    query_norm="self_attn.q_norm",
    key="self_attn.k_proj",
    key_norm="self_attn.k_norm",
    value="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    feed_forward_input_norm="post_attention_layernorm",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    final_norm="norm",
)

GEMMA = replace(
    QWEN,
    attention_branch_norm="post_attention_layernorm",
    feed_forward_input_norm="pre_feedforward_layernorm",
    feed_forward_branch_norm="post_feedforward_layernorm",
)

PREFIXES = {
    "albert": ("albert.",),
    "bert": ("bert.",),
    "camembert": ("roberta.",),
    "distilbert": ("distilbert.",),
    "electra": ("electra.",),
    "gemma3_text": ("model.",),
    "gte": ("gte.", "new."),
    "modernbert": ("model.",),
    "mpnet": ("mpnet.",),
    "new": ("gte.", "new."),
    "nomic_bert": ("nomic_bert.", "bert."),
    "qwen3": ("model.",),
    "roberta": ("roberta.",),
    "xlm-roberta": ("roberta.",),
}
"""What stands before all names where the file has a head, too, by `model_type`."""
