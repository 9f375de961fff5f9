"""Which of transformers' tokenizer classes a folder is read with.

transformers 5 builds most tokenizers anew by class: vocabulary and merges come from tokenizer.json, all else
from the class and tokenizer_config.json. So the class decides which file counts. The tables here are those of
transformers 5.23; `docs/decisions/0001-tokenizer-config.md` says what follows from them.
"""

from __future__ import annotations

from llmrs.errors import ModelError
from llmrs.models.settings import Settings

GENERIC = "TokenizersBackend"
"""The class that takes tokenizer.json as it is."""

SAME = {
    "BartTokenizer": "RobertaTokenizer",
    "ElectraTokenizer": "BertTokenizer",
    "LEDTokenizer": "RobertaTokenizer",
    "LongformerTokenizer": "RobertaTokenizer",
    "LxmertTokenizer": "BertTokenizer",
    "MobileBertTokenizer": "BertTokenizer",
    "MvpTokenizer": "RobertaTokenizer",
    "SqueezeBertTokenizer": "BertTokenizer",
}
"""Other names of a class."""

REBUILT = (
    "AlbertTokenizer",
    "BertTokenizer",
    "CamembertTokenizer",
    "DebertaTokenizer",
    "DebertaV2Tokenizer",
    "DistilBertTokenizer",
    "FunnelTokenizer",
    "GPT2Tokenizer",
    "GemmaTokenizer",
    "LlamaTokenizer",
    "MPNetTokenizer",
    "Qwen2Tokenizer",
    "RobertaTokenizer",
    "T5Tokenizer",
    "XLMRobertaTokenizer",
)
"""Classes that are built here as there, see `tokenizer_recipes`."""

VOCABULARIES: dict[str, tuple[str, ...]] = {
    "BertTokenizer": ("vocab.txt",),
    "DebertaTokenizer": ("vocab.json", "merges.txt"),
    "DistilBertTokenizer": ("vocab.txt",),
    "FunnelTokenizer": ("vocab.txt",),
    "GPT2Tokenizer": ("vocab.json", "merges.txt"),
    "MPNetTokenizer": ("vocab.txt",),
    "Qwen2Tokenizer": ("vocab.json", "merges.txt"),
    "RobertaTokenizer": ("vocab.json", "merges.txt"),
}
"""What a class is read from without a tokenizer.json. Others are kept in SentencePiece's own format."""

OTHERS = """
Barthez Bartpho BertJapanese Bertweet BigBird BioGpt BlenderbotSmall Blenderbot ByT5 CLIP CTRL Canine Clvp
CodeLlama Cohere CpmAnt Cpm DPRContextEncoder DPRQuestionEncoder DPRReader Dia Esm Esmc FNet FSMT Flaubert
GPTNeoXJapanese GPTNeoX GPTSw3 Herbert Lasr LayoutLMv2 LayoutLMv3 LayoutXLM Luke M2M100 MBart50 MBart MLuke
Marian MarkupLM Mgpstr MyT5 Nllb Nougat OpenAIGPT PLBart Parakeet Pegasus Perceiver Phobert ProphetNet
Qwen3_5 Rag Reformer RemBert RoCBert RoFormer SeamlessM4T Siglip2 Siglip Speech2Text SpeechT5 Splinter Tapas
Tipsv2 Udop VideoPrism Vits Wav2Vec2CTC Wav2Vec2PhonemeCTC Whisper XGLM XLM XLNet BertGeneration
FastSpeech2Conformer
"""
"""Classes that transformers has and that are not built here, less their common ending."""

TYPES = {
    "AlbertTokenizer": "albert yoso",
    "BertTokenizer": (
        "align bark bert blip bros chinese_clip convbert distilbert electra ernie flava git "
        "grounding-dino layoutlm megatron-bert mm-grounding-dino nezha nomic_bert qdqbert realm retribert "
        "squeezebert tvp vilt visual_bert lxmert mobilebert"
    ),
    "CamembertTokenizer": "camembert",
    "DebertaTokenizer": "deberta",
    "DebertaV2Tokenizer": "deberta-v2",
    "FunnelTokenizer": "funnel",
    "GPT2Tokenizer": (
        "blip-2 codegen dbrx emu3 gpt2 gpt_neo gptj hyperclovax_vision_v2 instructblip instructblipvideo "
        "jais2 opt phi starcoder2"
    ),
    "GemmaTokenizer": (
        "diffusion_gemma gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma "
        "shieldgemma2 t5gemma zaya"
    ),
    "LlamaTokenizer": "idefics idefics2",
    "MPNetTokenizer": "mpnet",
    "Qwen2Tokenizer": (
        "audioflamingo3 colqwen2 cosmos3_omni dots3_note fun_asr_nano hunyuan_vl internvl "
        "moss_transcribe_diarize ovis2 qianfan_ocr qwen2 qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe "
        "qwen2_vl qwen3 qwen3_asr qwen3_moe qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe lighton_ocr "
        "vibevoice"
    ),
    "RobertaTokenizer": (
        "bart bridgetower clap data2vec-text florence2 ibert led lilt longformer mega mra mvp roberta "
        "roberta-prelayernorm"
    ),
    "T5Tokenizer": "mt5 musicgen musicgen_melody switch_transformers t5",
    "XLMRobertaTokenizer": "gte jina_embeddings_v3 metaclip_2 trocr xlm-roberta xmod",
    GENERIC: (
        "EvollaModel arctic aria beam bigbird_pegasus camembertv2-base canary chatlm cohere_asr ernie4_5 "
        "ernie4_5_moe flex_olmo fuyu glm glm4 glm4_moe glm4_moe_lite glm4v glm4v_moe glm_image glmasr "
        "got_ocr2 gpt_bigcode gradium_phonon_tts granite granitemoe granitemoehybrid granitemoeshared "
        "h2ovl_chat hyperclovax hyperclovax_vlm internlm2 internlm3 iquestcoder jamba kimi_k25 "
        "kimi_linear kosmos-2 llava llava_next mimo_v2_flash minicpm3 minicpm_ocr minicpmv minicpmv4_6 "
        "minicpmv4_7 minimax_m2 ministral ministral3 mistral mistral3 mistral_large4 mixtral modernbert "
        "modernbert-decoder molmo molmo2 nemo_speechlm nemotron nvfp4 nystromformer olmo2 olmo3 "
        "olmo_hybrid opencua openvla paddleocr_vl pegasus_x persimmon phi3 phi3_v phimoe pix2struct "
        "pixtral pocket_tts smolvlm stablelm step3_vl umt5 vipllava voxtral voxtral_realtime "
        "xlm-roberta-xl"
    ),
    "": (
        "aimv2 aya_vision barthez bartpho bert-generation bert-japanese bertweet big_bird biogpt "
        "blenderbot blenderbot-small byt5 canine clip clipseg clvp code_llama cohere cohere2 cpm cpmant "
        "ctrl data2vec-audio dia dpr esm esmc esmfold2 falcon_mamba flaubert fnet fsmt gpt-sw3 gpt_neox "
        "gpt_neox_japanese granite_speech5_ctc groupvit herbert hubert lasr_ctc lasr_encoder layoutlmv2 "
        "layoutlmv3 layoutxlm luke m2m_100 mamba mamba2 marian markuplm mbart mbart50 mgp-str mluke mpt "
        "myt5 nemotron3_5_asr nemotron_asr_streaming nllb nllb-moe nougat olmo olmoe omdet-turbo "
        "oneformer openai-gpt owlv2 owlvit parakeet_ctc parakeet_rnnt parakeet_tdt pegasus perceiver "
        "phobert plbart pp_formulanet prophetnet qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text "
        "qwen4_exp rag reformer rembert roc_bert roformer rwkv sam3 sam3_video seamless_m4t "
        "seamless_m4t_v2 siglip2 splinter tapas udop unispeech unispeech-sat videoprism vits wav2vec2 "
        "wav2vec2-bert wav2vec2-conformer wav2vec2_phoneme whisper xclip xglm xlm xlnet xlstm"
    ),
}
"""The class of each `model_type`; types under the empty name have one that is not built here."""

REGISTERED = {kind: name for name, kinds in TYPES.items() for kind in kinds.split()}

STRICT = (
    "hyperclovax_vision_v2",
    "qwen2",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen4_exp",
    "siglip2",
)
"""Types whose own class counts whatever tokenizer_config.json says."""


AS_IT_IS = (
    "Set tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json to have tokenizer.json "
    "taken as it is"
)
"""What may be done where a class and tokenizer.json do not agree."""


def choose_class(tokenizer: Settings, config: Settings, *, byte_level: bool = False) -> str:
    """`GENERIC`, or the one of `REBUILT` that a folder is read with.

    Args:
        tokenizer: tokenizer_config.json.
        config: the encoder's config.json.
        byte_level: whether tokenizer.json works on bytes.

    Raises:
        ModelError: it would be code of the folder's own, or a class that is not built here.
    """
    if isinstance(mapped := tokenizer.raw("auto_map"), list) or (mapped or {}).get("AutoTokenizer"):
        raise ModelError(f"{tokenizer.path}: auto_map names code for the tokenizer, which is never run")
    place = tokenizer if "tokenizer_class" in tokenizer else config
    if place.raw("tokenizer_class") == "":
        raise ModelError(f"{place.path}: tokenizer_class is empty: remove it, or name a class")
    declared = place.text("tokenizer_class", default="").removesuffix("Fast")
    kind = config.text("model_type", default="")
    registered = REGISTERED.get(kind)
    if declared == "LlamaTokenizer" and byte_level and kind not in STRICT:
        return GENERIC
    if not declared:
        return _built(GENERIC if registered is None else registered, config, "model_type", kind)
    if registered == GENERIC:
        return GENERIC
    name = REGISTERED[kind] if kind in STRICT else declared
    return _built(name, place, "tokenizer_class", declared)


def _built(name: str, place: Settings, key: str, value: str) -> str:
    name = SAME.get(name, name)
    if name in REBUILT:
        return name
    if not name or name.removesuffix("Tokenizer") in OTHERS.split():
        raise ModelError(
            f"{place.path}: {key} = {value[:60]!r}: transformers builds this tokenizer in a way of its own, "
            f"which is not supported. {AS_IT_IS}"
        )
    return GENERIC
