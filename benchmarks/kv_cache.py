"""Decoding behind contexts of several lengths: a packed key-value cache, a float one, and attention left in float.

The model is a Llama of 100 million random parameters with grouped heads; what is measured does not depend on the
numbers. All candidates take one step each in turns, always behind the same context, in one process and on one thread;
the tenth percentile of the times is shown, for single times mean little on a shared machine. With a float cache every
step quantizes all keys and values again; with a packed one only the new token and the incomplete block.
"""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from common import Table, parser, report, seconds_in_turns

from mxcompile import exporter, onnx_file, runtime
from mxcompile.compiler import compile_model
from mxcompile.kv_cache import PAST, empty_cache, present_of

CONTEXTS = (128, 1024, 4096)
CHUNK = 128
"""Tokens of a prefill step: attention over all at once would take gigabytes."""

LAYERS, HIDDEN, HEADS, KV_HEADS, MLP, VOCABULARY = 12, 768, 12, 4, 2048, 32000
CANDIDATES: Mapping[str, Mapping[str, object]] = {
    "float attention": {"attention": False},
    "float cache": {"kv_cache": "float"},
    "packed cache": {"kv_cache": "packed"},
}
BASE = "float cache"


def export(folder: Path) -> Path:
    """The random Llama as an .onnx file."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=2 * max(CONTEXTS),
        tie_word_embeddings=True,
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


def main() -> None:
    """Builds, measures and prints."""
    options = parser("tokens/s and cache size behind contexts of several lengths, float and packed cache")
    options.add_argument("--threads", type=int, default=1, help="threads of onnxruntime (default: 1)")
    options.add_argument("--rounds", type=int, default=25, help="steps of each candidate (default: 25)")
    arguments = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = export(folder)
        decoders = {}
        for candidate, settings in CANDIDATES.items():
            path = folder / f"{candidate.replace(' ', '-')}.onnx"
            compile_model(plain, output=path, **settings)  # type: ignore[arg-type]
            decoders[candidate] = Decoder(runtime.create_session(path, threads=arguments.threads))
        for context in CONTEXTS:
            for decoder in decoders.values():
                decoder.fill(context)
            times = seconds_in_turns([partial(decoder.step, 1) for decoder in decoders.values()], arguments.rounds)
            rates = dict(zip(decoders, 1 / np.quantile(times, 0.1, axis=1), strict=True))
            for candidate, decoder in decoders.items():
                size = decoder.nbytes / 2**20
                rows.append((context, candidate, rates[candidate], rates[candidate] / rates[BASE], size))
    columns = {"context": "d", "candidate": "", "tokens/s": ".1f", "/ float cache": ".2f", "cache MiB": ".1f"}
    isa = runtime.library_info().isa
    title = f"One token behind a context, 100 M parameters in amxfp4, {isa}, threads: {arguments.threads}"
    report(arguments, Table(title, columns, rows))


if __name__ == "__main__":
    main()
