"""The keys of an encoder's config.json, by family: see `rules`.

Names and defaults are those of transformers 5.24, and for JinaBERT, NomicBERT and GTE also those of the
code that they were published with. A key that a family does not list is not known to it, although another
family may have it.
"""

from __future__ import annotations

from llmrs.models.rules import GIVEN, IGNORED, READ, UNSET, Rule, Table, each, only, within

ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "torch")
"""Ways to compute the same attention; a kernel of the hub is named `owner/name`, and is code."""

GENERATION = each(
    IGNORED,
    "assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens "
    "diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty "
    "epsilon_cutoff eta_cutoff exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id "
    "length_penalty max_length max_new_tokens min_length no_repeat_ngram_size num_assistant_tokens "
    "num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences output_scores "
    "remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens target_lookbehind "
    "temperature top_k top_p typical_p",
)
"""How a decoder writes text, which none does here."""

COMMON: Table = {
    **GENERATION,
    **each(READ, "model_type architectures auto_map pad_token_id matryoshka_dimensions tokenizer_class"),
    **each(GIVEN, "hidden_size num_hidden_layers num_attention_heads vocab_size max_position_embeddings"),
    # Names, versions and dates.
    **each(
        IGNORED,
        "_name_or_path name_or_path _commit_hash transformers_version transformers.js_config "
        "export_model_type language unsloth_version unsloth_fixed",
    ),
    # How numbers are stored; what they are computed in is `dtype` of the configuration.
    **each(IGNORED, "torch_dtype dtype use_bfloat16 torchscript"),
    # Training, and heads on top of the encoder: see `heads` for their weights.
    **each(
        IGNORED,
        "initializer_range gradient_checkpointing hidden_dropout_prob attention_probs_dropout_prob "
        "classifier_dropout classifier_dropout_prob attention_dropout dropout id2label label2id "
        "num_labels _num_labels problem_type finetuning_task task_specific_params tie_word_embeddings "
        "tie_encoder_decoder sentence_transformers loss_function xla_device",
    ),
    # What else is returned, kept, or split to save memory.
    **each(
        IGNORED,
        "return_dict output_attentions output_hidden_states output_past use_cache cache_implementation "
        "chunk_size_feed_forward tie_last_hidden_states",
    ),
    # Special tokens and the longest input are the tokenizer's, see tokenizer_config.
    **each(
        IGNORED,
        "bos_token_id eos_token_id sep_token_id cls_token_id unk_token_id mask_token_id "
        "decoder_start_token_id eos_token_ids model_max_length",
    ),
    **each(only(*ATTENTIONS), "attn_implementation _attn_implementation _attn_implementation_internal"),
    "_attn_implementation_autoset": IGNORED,
    **each(only(False), "is_decoder is_encoder_decoder add_cross_attention"),
    **each(UNSET, "cross_attention_hidden_size quantization_config per_layer_config transformers_weights"),
    "pruned_heads": only({}),
    "prefix": only(""),
    # A list of adapters, of another library; empty in what was trained with it and saved without.
    "adapters": within({"adapters": only({}), **each(IGNORED, "config_map fusion_config_map fusions")}),
}
"""Of every family."""

SEES_BOTH_WAYS: Table = {"is_causal": only(False), "use_bidirectional_attention": only(True)}

POOLER = each(
    IGNORED,
    "directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head "
    "pooler_type summary_type summary_use_proj summary_activation summary_last_dropout summary_first_dropout "
    "summary_proj_to_labels",
)
"""Of heads that old configurations describe."""

ROPE: Table = {
    **each(READ, "rope_type type rope_theta factor"),
    # Of kinds of scaling that are refused by their names.
    "original_max_position_embeddings": IGNORED,
    "partial_rotary_factor": only(1),
    "mixed_b": UNSET,
}
"""Of `rope_parameters` and `rope_scaling`."""

ROPES: dict[str, Rule] = each(within(ROPE), "rope_parameters rope_scaling")
ROPES_BY_KIND: dict[str, Rule] = {
    "rope_parameters": within(each(within(ROPE), "full_attention sliding_attention")),
    # The library takes `type` and `rope_theta` here for nothing, as it has both from elsewhere.
    "rope_scaling": within({**ROPE, "type": only("default"), "rope_theta": UNSET}),
}
"""Where layers that see the whole text turn by other angles than those that do not."""

BERT: Table = {
    **COMMON,
    **SEES_BOTH_WAYS,
    **POOLER,
    **each(GIVEN, "intermediate_size hidden_act layer_norm_eps type_vocab_size"),
    "position_embedding_type": only("absolute"),
    "emb_size": IGNORED,  # hidden_size once more, as rubert-tiny2 has it; to transformers of no account
}

JINA: Table = {
    **BERT,
    "position_embedding_type": only("alibi"),
    "feed_forward_type": only("geglu"),
    **each(IGNORED, "emb_pooler alibi_starting_size"),
}

ALBERT: Table = {
    **BERT,
    **each(GIVEN, "embedding_size num_hidden_groups inner_group_num"),
    # Of another implementation, and of no account to transformers.
    **each(IGNORED, "down_scale_factor gap_size net_structure_type num_memory_blocks layers_to_keep"),
}

ELECTRA: Table = {**BERT, "embedding_size": GIVEN}

MPNET: Table = {**BERT, "relative_attention_num_buckets": only(32)}

DISTILBERT: Table = {
    **COMMON,
    **SEES_BOTH_WAYS,
    **each(GIVEN, "n_layers n_heads dim hidden_dim intermediate_size activation"),
    "position_embedding_type": only("absolute"),
    # Sinusoidal tables are stored like learned ones.
    **each(IGNORED, "sinusoidal_pos_embds qa_dropout seq_classif_dropout tie_weights_"),
}

MODERNBERT: Table = {
    **COMMON,
    **SEES_BOTH_WAYS,
    **ROPES_BY_KIND,
    **each(GIVEN, "intermediate_size hidden_activation norm_eps norm_bias attention_bias mlp_bias"),
    **each(GIVEN, "local_attention global_attn_every_n_layers global_rope_theta local_rope_theta"),
    "layer_types": READ,
    # Published so, and read by nobody: positions are turned, and norms have norm_eps.
    "position_embedding_type": only("absolute", "rope"),
    "layer_norm_eps": IGNORED,
    **each(
        IGNORED,
        "initializer_cutoff_factor embedding_dropout mlp_dropout decoder_bias classifier_pooling "
        "classifier_bias classifier_activation deterministic_flash_attn sparse_prediction "
        "sparse_pred_ignore_index reference_compile repad_logits_with_grad",
    ),
}

NOMIC: Table = {
    **COMMON,
    **SEES_BOTH_WAYS,
    **POOLER,
    "rope_parameters": within(ROPE),
    **each(READ, "n_layer n_head n_embd n_inner n_positions layer_norm_epsilon rotary_emb_base"),
    **each(READ, "intermediate_size layer_norm_eps type_vocab_size hidden_act head_dim"),
    **each(READ, "rotary_scaling_factor max_trained_positions qkv_proj_bias mlp_fc1_bias mlp_fc2_bias"),
    **each(only(False), "prenorm parallel_block causal use_rms_norm rotary_emb_interleaved"),
    **each(only(False), "scale_attn_by_inverse_layer_idx parallel_block_tied_norm"),
    "scale_attn_weights": only(True),
    "rotary_emb_fraction": only(1),
    "activation_function": only("swiglu"),
    "rotary_emb_scale_base": UNSET,
    "moe_every_n_layers": only(-1, 0),
    # Of experts that there are none of, of training, and of kernels.
    **each(
        IGNORED,
        "num_experts num_shared_experts moe_top_k moe_impl moe_normalize_expert_weights moe_resid_pdrop "
        "ffn_div expert_choice_router router_aux_loss_coef attn_pdrop embd_pdrop resid_pdrop "
        "dense_seq_output fused_bias_fc fused_dropout_add_ln pad_vocab_size_multiple "
        "reorder_and_upcast_attn use_flash_attn use_xentropy",
    ),
}

GTE: Table = {
    **COMMON,
    **SEES_BOTH_WAYS,
    **ROPES,
    **each(GIVEN, "intermediate_size hidden_act layer_norm_eps type_vocab_size rope_theta"),
    "position_embedding_type": only("rope"),
    "layer_norm_type": only("layer_norm"),
    "pack_qkv": only(True),
    "logn_attention_scale": only(False),
    **each(IGNORED, "logn_attention_clip1 unpad_inputs use_memory_efficient_attention"),
}

QWEN3: Table = {
    **COMMON,
    **ROPES,
    **each(GIVEN, "intermediate_size hidden_act rms_norm_eps head_dim attention_bias rope_theta"),
    **each(GIVEN, "use_sliding_window max_window_layers"),
    **each(READ, "num_key_value_heads sliding_window layer_types"),
    # To transformers null is no different from false here.
    "is_causal": GIVEN,
    # transformers knows this key of other families alone, and computes as if it were not there.
    "use_bidirectional_attention": only(False),
}

GEMMA3: Table = {
    **COMMON,
    **ROPES_BY_KIND,
    **each(GIVEN, "intermediate_size hidden_activation rms_norm_eps num_key_value_heads head_dim"),
    **each(GIVEN, "attention_bias query_pre_attn_scalar rope_theta rope_local_base_freq sliding_window"),
    **each(READ, "layer_types sliding_window_pattern _sliding_window_pattern use_bidirectional_attention"),
    "is_causal": Rule(values=(True,), null=False),
    "attn_logit_softcapping": UNSET,
    "final_logit_softcapping": IGNORED,
}

FAMILIES: dict[str, Table] = {
    "albert": ALBERT,
    "bert": BERT,
    "camembert": BERT,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "gemma3_text": GEMMA3,
    "gte": GTE,
    "modernbert": MODERNBERT,
    "mpnet": MPNET,
    "new": GTE,
    "nomic_bert": NOMIC,
    "qwen3": QWEN3,
    "roberta": BERT,
    "xlm-roberta": BERT,
}
"""By `model_type`; a `bert` with `alibi` is a JINA."""

NEVER_BOTH_WAYS: Table = {"use_bidirectional_attention": only(False)}

BOTH_WAYS_IN_TRANSFORMERS = ("gemma", "gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text")
"""Kinds of models whose `use_bidirectional_attention` transformers 5.24 obeys; of others it is ignored."""

BY_TRANSFORMERS: Table = {
    # It builds models with learned positions, and skips this key where it once meant others.
    "position_embedding_type": only("absolute", "rope", "rotary"),
    **each(UNSET, "quantization_config per_layer_config transformers_weights"),
}
"""Of a configuration that transformers reads itself: what it would skip, or fetch more for."""
