"""What benchmarks of decoding share: a Llama of random weights, and steps behind a context."""

from pathlib import Path

import numpy as np
import onnxruntime

from mxcompile import exporter, onnx_file, runtime
from mxcompile.kv_cache import PAST, empty_cache, present_of

VOCABULARY = 32000
CHUNK = 128
"""Tokens of a prefill step: attention over all at once would take gigabytes."""


def export_llama(
    folder: Path, *, layers: int, hidden: int, heads: int, kv_heads: int, mlp: int, tied: bool, positions: int
) -> Path:
    """A Llama of random weights as an .onnx file in float32.

    Args:
        folder: Where it is written.
        layers: Decoder layers.
        hidden: Features of a token.
        heads: Heads of queries.
        kv_heads: Heads of keys and values.
        mlp: Features inside the feed-forward part.
        tied: Whether the output head is the embedding.
        positions: The longest sequence.
    """
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "model")
    with exporter.open_model(str(folder / "model"), task="text-generation-with-past") as exported:
        onnx_file.write_model(exported.models["model.onnx"], folder / "float.onnx")
    return folder / "float.onnx"


class Decoder:
    """A session and the cache of the tokens so far, which stays in onnxruntime."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._inputs = {each.name for each in session.get_inputs()}
        self._cache = {name: runtime.to_value(array) for name, array in empty_cache(session.get_inputs()).items()}
        self._length = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the cache."""
        return sum(value.numpy().nbytes for value in self._cache.values())

    def step(self, tokens: int, keep: bool = False) -> None:
        """Takes some tokens; keeps what they add to the cache, or forgets it."""
        end = self._length + tokens
        ids = np.random.default_rng(end).integers(VOCABULARY, size=(1, tokens))
        feeds = {
            "input_ids": ids,
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(self._length, end)[np.newaxis],
        }
        values = {name: runtime.to_value(array) for name, array in feeds.items() if name in self._inputs}
        presents = {present_of(name): name for name in self._inputs if name.startswith(PAST)}
        outputs = runtime.run(self._session, ["logits", *presents], values | self._cache)
        if keep:
            self._cache = {past: outputs[present] for present, past in presents.items()}
            self._length = end

    def fill(self, context: int) -> None:
        """Brings the cache to that many tokens, step by step."""
        while self._length < context:
            self.step(min(CHUNK, context - self._length), keep=True)
