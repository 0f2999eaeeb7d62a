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
from common import Table, parser, report, seconds_in_turns
from llama import Decoder, export_llama

from mxcompile import runtime
from mxcompile.compiler import compile_model

CONTEXTS = (128, 1024, 4096)
LLAMA = {"layers": 12, "hidden": 768, "heads": 12, "kv_heads": 4, "mlp": 2048, "tied": True, "positions": 8192}
CANDIDATES: Mapping[str, Mapping[str, object]] = {
    "float attention": {"attention": False},
    "float cache": {"kv_cache": "float"},
    "packed cache": {"kv_cache": "packed"},
}
BASE = "float cache"


def main() -> None:
    """Builds, measures and prints."""
    options = parser("tokens/s and cache size behind contexts of several lengths, float and packed cache")
    options.add_argument("--threads", type=int, default=1, help="threads of onnxruntime (default: 1)")
    options.add_argument("--rounds", type=int, default=25, help="steps of each candidate (default: 25)")
    arguments = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = export_llama(folder, **LLAMA)
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
