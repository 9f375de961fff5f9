"""The keys of the JSON files around an encoder, by file: see `rules`.

They are those of sentence-transformers 6.2, which writes and reads these files.
"""

from __future__ import annotations

from llmrs.models.rules import IGNORED, READ, UNSET, Table, each, only, within

MODULES: Table = {
    "type": READ,
    "path": READ,
    "name": READ,
    "idx": IGNORED,
    "kwargs": only([]),
}
"""Of each entry of modules.json."""

SENTENCE_TRANSFORMERS: Table = {
    "prompts": READ,
    "default_prompt_name": READ,
    "truncate_dim": READ,
    # Sparse encoders and cross encoders have other modules than these.
    "model_type": only("SentenceTransformer"),
    **each(IGNORED, "__version__ requirements similarity_fn_name"),
}
"""Of config_sentence_transformers.json."""

_LOADING = each(IGNORED, "trust_remote_code cache_dir revision token local_files_only subfolder")
"""What the library sets itself, whatever a file says."""

_CALL: Table = {
    "max_length": READ,
    "truncation": only(True, "longest_first", "only_first"),
    "padding": only(True, "longest"),
}

TRANSFORMER: Table = {
    "max_seq_length": READ,
    "do_lower_case": READ,
    "transformer_task": only("feature-extraction"),
    "module_output_name": only("token_embeddings"),
    "modality_config": within(
        {
            "text": within({"method": only("forward"), "method_output_name": only("last_hidden_state")}),
            **each(IGNORED, "image audio video"),
        }
    ),
    "processing_kwargs": within(
        {
            "text": within(_CALL),
            "common": within({"return_tensors": only("pt")}),
            # Of other kinds of inputs, and of chats, which no text is taken for.
            **each(IGNORED, "audio image video chat_template"),
        }
    ),
    # Texts are computed as if there were no padding, however they lie in a batch.
    "unpad_inputs": IGNORED,
    **each(UNSET, "query_length document_length query_expansion tokenizer_name_or_path"),
    **dict.fromkeys(
        ("model_args", "model_kwargs"),
        within(
            {
                **_LOADING,
                "attn_implementation": only("eager", "sdpa", "flash_attention_2", "flash_attention_3"),
                "add_pooling_layer": only(True, False),
                **each(IGNORED, "torch_dtype dtype use_safetensors low_cpu_mem_usage"),
            }
        ),
    ),
    **dict.fromkeys(
        ("tokenizer_args", "processor_kwargs"),
        within(
            {
                **_LOADING,
                "model_max_length": READ,
                "padding_side": only("left", "right"),
                "use_fast": IGNORED,
            }
        ),
    ),
    **dict.fromkeys(("config_args", "config_kwargs"), within({**_LOADING, "use_cache": IGNORED})),
    "cache_dir": IGNORED,
}
"""Of sentence_bert_config.json and its other names."""

POOLING: Table = {
    "pooling_mode": READ,
    **each(
        READ,
        "pooling_mode_cls_token pooling_mode_max_tokens pooling_mode_mean_tokens "
        "pooling_mode_mean_sqrt_len_tokens pooling_mode_weightedmean_tokens pooling_mode_lasttoken",
    ),
    "include_prompt": only(True),
    **each(READ, "embedding_dimension word_embedding_dimension"),
}

DENSE: Table = {
    **each(READ, "in_features out_features bias activation_function"),
    **each(only("sentence_embedding"), "module_input_name module_output_name"),
    "use_residual": only(False),
}

LAYER_NORM: Table = {"dimension": READ}

NORMALIZE: Table = each(only("sentence_embedding"), "module_input_name module_output_name")

DROPOUT: Table = {"dropout": IGNORED}

BY_LIBRARY: dict[str, Table] = {
    "CNN": each(
        READ, "in_embedding_dimension in_word_embedding_dimension out_channels kernel_sizes stride_sizes"
    ),
    "Dense": {**DENSE, "use_residual": READ},
    "Dropout": DROPOUT,
    "LayerNorm": LAYER_NORM,
    "Normalize": NORMALIZE,
    "Pooling": POOLING,
    "WeightedLayerPooling": each(
        READ, "embedding_dimension word_embedding_dimension layer_start num_hidden_layers layer_weights"
    ),
    "WordWeights": each(READ, "vocab word_weights unknown_word_weight"),
}
"""Of the modules that sentence-transformers itself computes, which obeys these keys."""

MODEL2VEC: Table = {
    **each(READ, "model_type normalize max_length"),
    **each(
        IGNORED,
        "apply_pca apply_zipf architectures embedding_dtype hidden_dim pooling seq_length sif_coefficient "
        "token_remove_pattern tokenizer_name transformers_version vocabulary_quantization",
    ),
}
"""Of config.json of a static model that model2vec has written."""
