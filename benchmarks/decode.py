"""Decoding a whole model of half a billion parameters: our products against onnxruntime's float32 and 4-bit ones.

A Llama of random weights; what is measured does not depend on them. The rivals are the same exported graph, with the
same linear layers, the output head among them, as MatMulNBits by onnxruntime's own quantizer (blocks of 32,
accuracy_level 4: int8 products), or left in float32. All take one step each in turns behind the same context.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from common import Table, parser, report, seconds_in_turns
from llama import VOCABULARY, Decoder, export_llama
from products import with_nbits

from mxcompile import runtime
from mxcompile.compiler import compile_model

CONTEXT = 128
LLAMA = {"layers": 24, "hidden": 1024, "heads": 16, "kv_heads": 4, "mlp": 5120, "tied": False, "positions": 2048}
PARAMETERS = 24 * (2 * 1024 * 1024 + 2 * 1024 * 256 + 3 * 1024 * 5120) + 2 * VOCABULARY * 1024
FORMATS = ("amxfp4", "mxfp4", "dint4")
RIVAL = "MatMulNBits"
EVERYTHING = "amxfp4, attention and packed cache too"


def write_nbits(plain: Path, ours: Path, target: Path) -> None:
    """The graph with the linear layers that ``ours`` quantizes as MatMulNBits."""
    nodes = onnx.load(ours, load_external_data=False).graph.node
    names = [node.name for node in nodes if node.op_type == "MatMulBlock"]
    model = with_nbits(onnx.load(plain), names)
    assert sum(node.op_type == "MatMulNBits" for node in model.graph.node) == len(names)
    onnx.save(model, target, save_as_external_data=True, location=f"{target.name}.data")


def main() -> None:
    """Builds, measures and prints."""
    options = parser("tokens/s of a Llama of 0.5 billion parameters behind a context of 128")
    options.add_argument("--threads", type=int, default=1, help="threads of onnxruntime (default: 1)")
    options.add_argument("--rounds", type=int, default=25, help="steps of each candidate (default: 25)")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = export_llama(folder, **LLAMA)
        paths = {"float32": plain}
        for fmt in FORMATS:
            paths[fmt] = folder / f"{fmt}.onnx"
            compile_model(plain, format=fmt, output=paths[fmt], include=["*"], exclude=["*/qk", "*/pv"])
        paths[RIVAL] = folder / "nbits.onnx"
        write_nbits(plain, paths["amxfp4"], paths[RIVAL])
        paths[EVERYTHING] = folder / "all.onnx"
        compile_model(plain, output=paths[EVERYTHING], include=["*"])
        decoders = {
            key: Decoder(runtime.create_session(path, threads=arguments.threads)) for key, path in paths.items()
        }
        for decoder in decoders.values():
            decoder.fill(CONTEXT)
        times = seconds_in_turns([partial(decoder.step, 1) for decoder in decoders.values()], arguments.rounds)
    rates = dict(zip(decoders, 1 / np.quantile(times, 0.1, axis=1), strict=True))
    rows = [(key, rate, rate / rates["float32"], rate / rates[RIVAL]) for key, rate in rates.items()]
    title = f"One token behind {CONTEXT}, {PARAMETERS / 1e9:.2f} billion parameters, {runtime.library_info().isa}"
    columns = {"linear layers": "", "tokens/s": ".1f", "/ float32": ".2f", f"/ {RIVAL}": ".2f"}
    report(arguments, Table(f"{title}, threads: {arguments.threads}", columns, rows))


if __name__ == "__main__":
    main()
