"""Tiny Hugging Face models with random weights, one for each architecture that the tests compile.

``save_tiny_model(name, folder)`` writes what a download from the hub would: configuration, safetensors and, for
text models, a tokenizer. The same name gives the same weights every time.
"""

from pathlib import Path
from typing import Any

VOCABULARY = 128
HIDDEN = 64
MLP = 96
LAYERS = 2
HEADS = 4
POSITIONS = 64
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
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {**_GROUPED, "head_dim": 32}),
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

DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "phi", "gpt2", "opt")
ENCODERS = ("bert", "roberta", "vit")
ENCODER_DECODERS = ("t5", "bart")
NAMES = tuple(_MODELS)


def save_tiny_model(name: str, folder: Path) -> Path:
    """Writes the model, and a tokenizer if it reads text, into ``folder``; returns ``folder``."""
    import torch
    import transformers

    config_class, model_class, arguments = _MODELS[name]
    config = getattr(transformers, config_class)(**arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, model_class)(config).save_pretrained(folder)
    if name != "vit":
        _tokenizer().save_pretrained(folder)
    return folder


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
