"""Text models of a few operators whose answers are known, and tokenizers of single bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven")
"""The vocabulary of `counting_decoder` and of `encoder`."""

LIKELY = 10.0
"""Logit of the word that follows; the others have 0, -1, -2, ... in order."""

_DECODER = """
<ir_version: 10, opset_import: ["" : 21]>
main_graph (
    {ids}[batch_size, sequence_length] input_ids,
    {ids}[batch_size, total] attention_mask,
    {cache}[batch_size, 1, past_sequence_length, 1] past_key
) => ({cache}[batch_size, sequence_length, 8] logits, {cache}[batch_size, 1, total, 1] present_key) {{
    logits = Gather(table, input_ids)
    axes = Constant<value_ints = [1, 3]>()
    words = Unsqueeze(input_ids, axes)
    new = Cast<to = {to}>(words)
    present_key = Concat<axis = 2>(past_key, new)
}}
"""

_ENCODER = """
<ir_version: 10, opset_import: ["" : 21]>
main_graph (
    int64[batch_size, sequence_length] input_ids,
    int64[batch_size, sequence_length] attention_mask,
    int64[batch_size, sequence_length] token_type_ids
) => (float[batch_size, {shape}] {output}) {{
    words = Gather(table, input_ids)
    {output} = {operator}(words)
}}
"""


def model(text: str, metadata: Mapping[str, str] | None = None, **weights: np.ndarray) -> onnx.ModelProto:
    """A model from ONNX text, with metadata and initializers."""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.helper.set_model_props(proto, metadata or {})
    return proto


def save(proto: onnx.ModelProto, path: Path) -> Path:
    """Writes a model; gives the path."""
    onnx.save(proto, path)
    return path


def word_tokenizer() -> Tokenizer:
    """A tokenizer of `WORDS`, separated by spaces."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="zero"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def byte_tokenizer() -> Tokenizer:
    """A byte-level tokenizer without merges, as of GPT-2: each byte is a token, decoded with replacements."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


def fallback_tokenizer() -> Tokenizer:
    """A tokenizer as of Llama 2: words that begin with a mark for the space, and bytes for everything else."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocabulary |= {word: 256 + index for index, word in enumerate(["▁", "▁a", "▁cat", "s", "<unk>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def counting_decoder(
    cache: str = "float", ids: str = "int64", tokenizer: Tokenizer | None = None, **generation: Any
) -> onnx.ModelProto:
    """A decoder that counts: after a word comes the next one, after the last one the first.

    Args:
        cache: Type of the cache and the logits, ``float`` or ``float16``.
        ids: Type of the tokens, ``int64`` or ``int32``.
        tokenizer: Goes into the metadata; None for `word_tokenizer`.
        generation: Goes into the metadata too.
    """
    size = len(WORDS)
    dtype = {"float": np.float32, "float16": np.float16}[cache]
    table = np.tile(-np.arange(size, dtype=dtype), (size, 1))
    table[np.arange(size), (np.arange(size) + 1) % size] = LIKELY
    metadata = {
        "mxcompile.tokenizer": (tokenizer or word_tokenizer()).to_str(),
        "mxcompile.generation": json.dumps(generation),
    }
    text = _DECODER.format(cache=cache, ids=ids, to=int(onnx.TensorProto.DataType.Value(cache.upper())))
    proto = model(text, metadata, table=table)
    names = {"past_key": "past_key_values.0.key", "present_key": "present.0.key"}  # no names for ONNX text
    concat = proto.graph.node[-1]
    concat.input[0], concat.output[0] = names[concat.input[0]], names[concat.output[0]]
    for value in (proto.graph.input[-1], proto.graph.output[-1]):
        value.name = names[value.name]
    return proto


def word_vectors() -> np.ndarray:
    """What `encoder` makes of each word: float32 ``[8, 4]``."""
    return np.random.default_rng(0).standard_normal((len(WORDS), 4)).astype(np.float32)


def encoder(output: str = "last_hidden_state") -> onnx.ModelProto:
    """An encoder that gives a vector a word, or, by other names of the output, the largest values over the words."""
    per_word = output == "last_hidden_state"
    shape, operator = ("sequence_length, 4", "Identity") if per_word else ("4", "ReduceMax<keepdims = 0>")
    text = _ENCODER.format(output=output, shape=shape, operator=operator)
    if not per_word:
        text = text.replace("(words)\n", "(words, one)\n")
    weights = {"table": word_vectors()} | ({} if per_word else {"one": np.array([1])})
    return model(text, {"mxcompile.tokenizer": word_tokenizer().to_str()}, **weights)
