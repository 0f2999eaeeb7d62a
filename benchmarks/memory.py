"""Memory of a loaded model of half a billion parameters, and the time of loading it.

A Llama of random weights: its linear layers in amxfp4, in float32, or as MatMulNBits by onnxruntime's own quantizer.
Each candidate loads in a fresh process and then takes one token, without which weights that are mapped from a file
would not be in memory; candidates take turns. What Python and the libraries take alone is shown too.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from common import Table, parser, report
from decode import LLAMA, PARAMETERS, RIVAL, write_nbits
from llama import export_llama

from mxcompile import onnx_file, runtime
from mxcompile.compiler import compile_model

CHILD = """
import json, sys, time
from pathlib import Path
import numpy as np
import onnxruntime as ort
from mxcompile import runtime
from mxcompile.kv_cache import empty_cache

def megabytes(key):
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6

runtime.library_info()
how, path = sys.argv[1:]
start = time.perf_counter()
if how == "create_session":
    session = runtime.create_session(path, threads=1)
elif how == "onnxruntime":
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(str(runtime.custom_ops_library()))
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
loaded = time.perf_counter() - start
resident, peak = megabytes("VmRSS"), megabytes("VmHWM")
if how:
    one, cache = np.ones((1, 1), np.int64), empty_cache(session.get_inputs())
    feeds = {each.name: cache.get(each.name, one) for each in session.get_inputs()}
    session.run(["logits"], feeds)
print(json.dumps([resident, megabytes("VmRSS"), megabytes("RssAnon"), max(peak, megabytes("VmHWM")), loaded]))
"""
ALONE = "no model"


def build(folder: Path) -> Mapping[str, tuple[str, Path]]:
    """Writes the models; gives how to load each, and its file."""
    plain = export_llama(folder, **LLAMA)
    ours, external, rival = (folder / f"{name}.onnx" for name in ("ours", "external", "nbits"))
    compile_model(plain, format="amxfp4", output=ours, include=["*"], exclude=["*/qk", "*/pv"])
    onnx_file.write_model(onnx_file.read_model(ours, compiled=True), external, max_inline_bytes=0)
    write_nbits(plain, ours, rival)
    return {
        ALONE: ("", folder),
        "float32, data file": ("onnxruntime", plain),
        f"{RIVAL}, data file": ("onnxruntime", rival),
        "amxfp4, one file, onnxruntime alone": ("onnxruntime", ours),
        "amxfp4, data file, onnxruntime alone": ("onnxruntime", external),
        "amxfp4, one file, create_session": ("create_session", ours),
    }


def measure(how: str, path: Path) -> list[float]:
    """Megabytes: after loading, after a token, of these anonymous, at most; and seconds of loading."""
    command = [sys.executable, "-c", CHILD, how, str(path)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: list[float] = json.loads(output.splitlines()[-1])
    return figures


def main() -> None:
    """Builds, measures and prints."""
    options = parser("memory of a loaded Llama of 0.5 billion parameters, and the time of loading it")
    options.add_argument("--rounds", type=int, default=5, help="processes of each candidate (default: 5)")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        candidates = build(Path(name))
        turns = [[measure(*candidate) for candidate in candidates.values()] for _ in range(arguments.rounds)]
    rows = [(key, *row) for key, row in zip(candidates, np.median(turns, axis=0).tolist(), strict=True)]
    columns = {"candidate": "", "loaded MB": ".0f", "after a token MB": ".0f", "of it anonymous MB": ".0f"}
    columns |= {"peak MB": ".0f", "load s": ".2f"}
    title = f"{PARAMETERS / 1e9:.2f} billion parameters in memory, {runtime.library_info().isa}"
    report(arguments, Table(f"{title}, medians of {arguments.rounds} processes", columns, rows))


if __name__ == "__main__":
    main()
