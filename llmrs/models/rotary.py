"""The families with rotary positions: what their Hugging Face `config.json` says.

A configuration may be in the form that a model was published with, or in the one that transformers 5
writes, which gathers what is about rotations in `rope_parameters`.
"""

from __future__ import annotations

from collections.abc import Callable

from llmrs.errors import ModelError
from llmrs.models import names
from llmrs.models.architectures import Encoder, Layer, Rope
from llmrs.models.read import activation, agree, epsilon, head_width, padding, shared_heads
from llmrs.models.settings import Settings

SYNONYMS = (
    ("n_head", "num_attention_heads"),
    ("n_embd", "hidden_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_inner", "intermediate_size"),
    ("n_positions", "max_position_embeddings"),
    ("layer_norm_epsilon", "layer_norm_eps"),
)
"""NomicBERT's own words, and transformers' for the same."""

FULL, SLIDING = "full_attention", "sliding_attention"


def modernbert(config: Settings) -> Encoder:
    """ModernBERT (Warner et al., 2024): most layers see a window only, and turn by another theta."""
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    width, count = head_width(config, heads, hidden), config.integer("num_hidden_layers")
    every = config.integer("global_attn_every_n_layers", default=3)
    ropes = {
        FULL: _rope(config, width, 160_000.0, "global_rope_theta", kind=FULL),
        SLIDING: _rope(config, width, 10_000.0, "local_rope_theta", kind=SLIDING),
    }
    reaches = {FULL: None, SLIDING: config.integer("local_attention", default=128) // 2}
    kinds = _kinds(config, count, lambda index: index % every == 0)
    mlp_bias = config.flag("mlp_bias", default=False)
    return Encoder(
        names=names.MODERNBERT,
        layers=tuple(
            Layer(names.MODERNBERT_LAYER.format(index), ropes[kind], reaches[kind], input_norm=index > 0)
            for index, kind in enumerate(kinds)
        ),
        heads=heads,
        key_heads=heads,
        head_width=width,
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        embedding=hidden,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings", default=8192),
        padding_id=padding(config),
        epsilon=epsilon(config, "norm_eps", default=1e-5),
        activation=activation(config, "hidden_activation"),
        attention_bias=config.flag("attention_bias", default=False),
        up_bias=mlp_bias,
        down_bias=mlp_bias,
        norm_bias=config.flag("norm_bias", default=False),
    )


def nomic(config: Settings) -> Encoder:
    """NomicBERT (Nussbaum et al., 2024), in its own words (`n_embd`) or in those of transformers."""
    for names_of_one in SYNONYMS:
        agree(config, *names_of_one)
    heads, hidden = config.integer("n_head", "num_attention_heads"), config.integer("n_embd", "hidden_size")
    width, count = head_width(config, heads, hidden), config.integer("n_layer", "num_hidden_layers")
    if config.integer("head_dim", default=width) != width:
        raise ModelError(
            f"{config.path}: head_dim = {config.raw('head_dim')} is not hidden_size / num_attention_heads"
        )
    rope = _rope(config, width, 1000.0, "rotary_emb_base")
    positions = config.integer("n_positions", "max_position_embeddings")
    if "rotary_scaling_factor" in config:
        # Beyond these, rotations would depend on the longest text of a batch.
        positions = config.integer("max_trained_positions", default=2048)
    up_bias = config.flag("mlp_fc1_bias", default=False)
    return Encoder(
        names=names.NOMIC,
        layers=tuple(Layer(names.NOMIC_LAYER.format(index), rope) for index in range(count)),
        heads=heads,
        key_heads=heads,
        head_width=width,
        hidden=hidden,
        intermediate=config.integer("n_inner", "intermediate_size"),
        embedding=hidden,
        vocabulary=config.integer("vocab_size"),
        positions=positions,
        token_types=config.integer("type_vocab_size", default=2, minimum=0),
        padding_id=padding(config),
        epsilon=epsilon(config, "layer_norm_epsilon", "layer_norm_eps", default=1e-12),
        activation=activation(config, "hidden_act", default="silu"),
        attention_bias=config.flag("qkv_proj_bias", default=False),
        up_bias=up_bias,
        down_bias=config.flag("mlp_fc2_bias", default=False),
    )


def gte(config: Settings) -> Encoder:
    """GTE (Zhang et al., 2024), `new` where it was published, `gte` in transformers."""
    heads, hidden = config.integer("num_attention_heads"), config.integer("hidden_size")
    width, count = head_width(config, heads, hidden), config.integer("num_hidden_layers")
    rope = _rope(config, width, 10_000.0 if config.text("model_type") == "new" else 160_000.0, "rope_theta")
    return Encoder(
        names=names.GTE,
        layers=tuple(Layer(names.BERT_LAYER.format(index), rope) for index in range(count)),
        heads=heads,
        key_heads=heads,
        head_width=width,
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        embedding=hidden,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings"),
        token_types=config.integer("type_vocab_size", default=1, minimum=0),
        padding_id=padding(config),
        epsilon=epsilon(config, "layer_norm_eps", default=1e-12),
        activation=activation(config, "hidden_act"),
        up_bias=False,
    )


def qwen3(config: Settings) -> Encoder:
    """Qwen3 (2025): a decoder, of which the last token's vector is the text's; some see both ways."""
    heads, key_heads = shared_heads(config, default=32)
    hidden, count = config.integer("hidden_size"), config.integer("num_hidden_layers")
    width = config.integer("head_dim", default=128)
    rope = _rope(config, width, 10_000.0, "rope_theta")
    reaches: dict[str, int | None] = {FULL: None, SLIDING: None}
    if config.flag("use_sliding_window", default=False):
        reaches[SLIDING] = config.integer("sliding_window", default=4096) - 1
    causal = config.flag("is_causal", default=True)
    if not causal and reaches[SLIDING] is not None:
        raise ModelError(f"{config.path}: is_causal = false with use_sliding_window = true is not supported")
    first = config.integer("max_window_layers", default=28, minimum=0)
    kinds = _kinds(config, count, lambda index: reaches[SLIDING] is None or index < first)
    return Encoder(
        names=names.QWEN,
        layers=tuple(
            Layer(names.QWEN_LAYER.format(index), rope, reaches[kind]) for index, kind in enumerate(kinds)
        ),
        heads=heads,
        key_heads=key_heads,
        head_width=width,
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        embedding=hidden,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings", default=32768),
        padding_id=padding(config),
        epsilon=epsilon(config, "rms_norm_eps", default=1e-6),
        activation=activation(config, "hidden_act", default="silu"),
        causal=causal,
        norm="rms",
        attention_bias=config.flag("attention_bias", default=False),
        up_bias=False,
        down_bias=False,
    )


def gemma3(config: Settings) -> Encoder:
    """Gemma 3's text model (2025); as EmbeddingGemma it sees both ways."""
    heads, key_heads = shared_heads(config, default=4)
    hidden, count = config.integer("hidden_size"), config.integer("num_hidden_layers")
    width = config.integer("head_dim", default=256)
    both_ways = config.flag("use_bidirectional_attention", default=False)
    window = config.integer("sliding_window", default=4096)
    # Of a causal window the token itself is one; the other one lies half to each side.
    reaches = {FULL: None, SLIDING: window // 2 if both_ways else window - 1}
    ropes = {
        FULL: _rope(config, width, 1_000_000.0, "rope_theta", kind=FULL),
        SLIDING: _rope(config, width, 10_000.0, "rope_local_base_freq", kind=SLIDING, scaled=False),
    }
    every = config.integer("sliding_window_pattern", default=6)
    if "layer_types" not in config and config.integer("_sliding_window_pattern", default=every) != every:
        # transformers writes this name, and does not read it.
        raise ModelError(f"{config.path}: _sliding_window_pattern is not read; layer_types must be there")
    kinds = _kinds(config, count, lambda index: (index + 1) % every == 0)
    return Encoder(
        names=names.GEMMA,
        layers=tuple(
            Layer(names.QWEN_LAYER.format(index), ropes[kind], reaches[kind])
            for index, kind in enumerate(kinds)
        ),
        heads=heads,
        key_heads=key_heads,
        head_width=width,
        hidden=hidden,
        intermediate=config.integer("intermediate_size"),
        embedding=hidden,
        vocabulary=config.integer("vocab_size"),
        positions=config.integer("max_position_embeddings", default=131_072),
        padding_id=padding(config),
        epsilon=epsilon(config, "rms_norm_eps", default=1e-6),
        activation=activation(config, "hidden_activation", default="gelu_pytorch_tanh"),
        causal=not both_ways,
        norm="rms_plus_one",
        attention_bias=config.flag("attention_bias", default=False),
        up_bias=False,
        down_bias=False,
        embedding_scale=hidden**0.5,
        score_scale=config.integer("query_pre_attn_scalar", default=256) ** -0.5,
    )


def _kinds(config: Settings, count: int, is_full: Callable[[int], bool]) -> list[str]:
    """Which layers see the whole text: as the configuration lists them, or by its older rule."""
    listed = config.raw("layer_types")
    if listed is None:
        return [FULL if is_full(index) else SLIDING for index in range(count)]
    if (
        not isinstance(listed, list)
        or len(listed) != count
        or any(kind not in (FULL, SLIDING) for kind in listed)
    ):
        raise ModelError(f"{config.path}: layer_types does not name {FULL} or {SLIDING} for every layer")
    return listed


def _rope(
    config: Settings, width: int, theta: float, key: str, *, kind: str | None = None, scaled: bool = True
) -> Rope:
    """Rotations of heads of a width, by the configuration in either form.

    Args:
        theta: the default of `key`, which is what the older form calls it.
        kind: of the layers they are for, where a model has several.
        scaled: whether `rope_scaling` of the older form is about these.
    """
    if width % 2:
        raise ModelError(f"{config.path}: heads of {width} numbers cannot be turned in pairs")
    settings = config.object("rope_parameters")
    older = config.object("rope_scaling")
    if settings.values and older.values:
        raise ModelError(
            f"{config.path}: rope_parameters and rope_scaling are both there, and one could count"
        )
    if kind is not None:
        settings = settings.object(kind)
    if older.values and scaled:
        settings = older
    theta = settings.number("rope_theta", default=config.number(key, default=theta))
    if not theta > 0:
        raise ModelError(f"{config.path}: rope_theta is {theta}, expected more than 0")
    agree(settings, "rope_type", "type")
    name = settings.text("rope_type", "type", default="default")
    if name == "default":
        return Rope(theta)
    factor = settings.number("factor")
    if not factor > 0:
        raise ModelError(f"{config.path}: factor is {factor}, expected more than 0")
    if name == "linear":
        return Rope(theta, factor)
    if name == "ntk":
        # Slow rotations are slowed down most (kexue.fm/archives/9706, as GTE has it).
        return Rope(theta * factor, factor ** (2 / width))
    raise ModelError(f"{config.path}: rotations of type {name[:40]!r} are not supported")
