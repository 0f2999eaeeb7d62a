"""Tiny Hugging Face models with random weights, one for each architecture that the tests compile.

``save_tiny_model(name, folder)`` writes what a download from the hub would: configuration, safetensors and, for
text models, a tokenizer. The same name gives the same weights every time.
"""

import warnings
from pathlib import Path
from typing import Any

VOCABULARY = 128
HIDDEN = 64
MLP = 96
LAYERS = 2
HEADS = 4
POSITIONS = 64
WINDOW = 4
PAD, BOS, EOS = 0, 1, 2

_TRANSFORMER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
}
_TOKENS: dict[str, Any] = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
_GROUPED: dict[str, Any] = {**_TRANSFORMER, **_TOKENS, "num_key_value_heads": HEADS // 2}

# Name -> (config class, model class, arguments of the config).
_MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", _GROUPED),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**_GROUPED, "sliding_window": None}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**_GROUPED, "head_dim": 32}),
    # A router in each layer chooses two of four experts.
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {
            **_GROUPED,
            "head_dim": 32,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": MLP // 2,
            "norm_topk_prob": True,
        },
    ),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {**_GROUPED, "head_dim": 32}),
    # A window and a cap on the scores, both so small that they change the logits of the tests.
    "gemma2": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {
            **_GROUPED,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "attn_logit_softcapping": 0.02,
            "final_logit_softcapping": 0.5,
        },
    ),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _GROUPED),
    "phi": ("PhiConfig", "PhiForCausalLM", {**_TRANSFORMER, **_TOKENS}),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {
            "vocab_size": VOCABULARY,
            "n_embd": HIDDEN,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_positions": POSITIONS,
            **_TOKENS,
        },
    ),
    "opt": (
        "OPTConfig",
        "OPTForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "word_embed_proj_dim": HIDDEN,
            "ffn_dim": MLP,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
            **_TOKENS,
        },
    ),
    "bert": ("BertConfig", "BertForMaskedLM", {**_TRANSFORMER, "pad_token_id": PAD}),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification", {**_TRANSFORMER, **_TOKENS}),
    "modernbert": (
        "ModernBertConfig",
        "ModernBertForMaskedLM",
        {
            **_TRANSFORMER,
            **_TOKENS,
            "cls_token_id": BOS,
            "sep_token_id": EOS,
            "global_attn_every_n_layers": 2,
            "local_attention": 2 * WINDOW,
        },
    ),
    "vit": (
        "ViTConfig",
        "ViTForImageClassification",
        {
            "hidden_size": HIDDEN,
            "intermediate_size": MLP,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "image_size": 32,
            "patch_size": 16,
        },
    ),
    "siglip": (
        "SiglipConfig",
        "SiglipModel",
        {
            "text_config": {**_TRANSFORMER, **_TOKENS, "projection_size": HIDDEN},
            "vision_config": {
                "hidden_size": HIDDEN,
                "intermediate_size": MLP,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": HEADS,
                "image_size": 32,
                "patch_size": 16,
            },
        },
    ),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {
            "vocab_size": VOCABULARY,
            "d_model": HIDDEN,
            "d_kv": 16,
            "d_ff": MLP,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
            "decoder_start_token_id": PAD,
        },
    ),
    "bart": (
        "BartConfig",
        "BartForConditionalGeneration",
        {
            "vocab_size": VOCABULARY,
            "d_model": HIDDEN,
            "encoder_ffn_dim": MLP,
            "decoder_ffn_dim": MLP,
            "encoder_layers": LAYERS,
            "decoder_layers": LAYERS,
            "encoder_attention_heads": HEADS,
            "decoder_attention_heads": HEADS,
            "max_position_embeddings": POSITIONS,
            "decoder_start_token_id": EOS,
            "forced_eos_token_id": None,
            **_TOKENS,
        },
    ),
}

DECODERS = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "phi3", "phi", "gpt2", "opt")
ENCODERS = ("bert", "roberta", "modernbert", "vit")
TWO_TOWERS = ("siglip",)
ENCODER_DECODERS = ("t5", "bart")
NAMES = tuple(_MODELS)
IMAGES_ONLY = ("vit",)

ATTENTIONS: dict[str, dict[str, int]] = {
    **{name: {"model.onnx": LAYERS} for name in (*DECODERS, *ENCODERS)},
    # Both towers, and the one that pools the image.
    **{name: {"model.onnx": 2 * LAYERS + 1} for name in TWO_TOWERS},
    # In both branches of the decoder, to itself and to the encoder.
    **{name: {"encoder_model.onnx": LAYERS, "decoder_model_merged.onnx": 4 * LAYERS} for name in ENCODER_DECODERS},
}
"""How many attentions the files of each model hold."""


def save_tiny_model(name: str, folder: Path) -> Path:
    """Writes the model, and a tokenizer if it reads text, into ``folder``; returns ``folder``."""
    import torch
    import transformers

    config_class, model_class, arguments = _MODELS[name]
    config = getattr(transformers, config_class)(**arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        class_of(model_class)(config).save_pretrained(folder)
    if name not in IMAGES_ONLY:
        _tokenizer().save_pretrained(folder)
    return folder


def class_of(name: str) -> Any:
    """A class of transformers by its name, such as an ``architectures`` entry of a configuration."""
    import transformers

    with warnings.catch_warnings():  # ModernBERT's import alone makes torch warn, of itself.
        warnings.simplefilter("ignore")
        return getattr(transformers, name)


def load(folder: Path) -> Any:
    """The model that `save_tiny_model` wrote, in eager mode, ready to infer."""
    import torch
    import transformers

    (name,) = transformers.AutoConfig.from_pretrained(folder).architectures
    model = class_of(name).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model.set_attn_implementation("eager")  # the models inside of it too: only eager attention caps scores, and counts
    return model


def _tokenizer() -> Any:
    """Returns a tokenizer of VOCABULARY words: the special tokens, then w3, w4, ..."""
    import tokenizers
    import transformers

    words = {"<pad>": PAD, "<s>": BOS, "</s>": EOS, **{f"w{i}": i for i in range(3, VOCABULARY)}}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
    )
