"""Speed of the custom ops on one thread: against their NumPy definition, and against onnxruntime's float32 MatMul.

All candidates of a table take turns in one process, so that what disturbs one disturbs all; the tenth percentile of
thread CPU time is shown. Compare ratios: single times mean little on a shared machine.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from common import Table, parser, report
from onnx import helper, numpy_helper

from mxcompile.formats import FORMATS, NONE, get_format
from mxcompile.runtime import create_session, library_info

Array = npt.NDArray[Any]
QUANTIZED_SHAPE = (512, 4096)
K = N = 2048
ROWS = (1, 16, 128)
SECONDS = 1.0
"""Time given to each candidate."""


def bound_run(node: onnx.NodeProto, feeds: Mapping[str, Array], constants: Mapping[str, Array]) -> Callable[[], Any]:
    """A one-node session on one thread, as a function that runs it on those feeds."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in feeds.items()
    ]
    types = {"codes": onnx.TensorProto.UINT8, "scales": onnx.TensorProto.UINT8}
    outputs = [
        helper.make_tensor_value_info(name, types.get(name, onnx.TensorProto.FLOAT), None) for name in node.output
    ]
    initializers = [numpy_helper.from_array(x, name) for name, x in constants.items()]
    graph = helper.make_graph([node], "one-node", inputs, outputs, initializer=initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("mxcompile", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = create_session(model.SerializeToString(), threads=1)
    binding = session.io_binding()
    for name, x in feeds.items():
        binding.bind_cpu_input(name, x)
    for name in node.output:
        binding.bind_output(name, "cpu")
    return lambda: session.run_with_iobinding(binding)


def race(candidates: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of thread CPU time of each candidate, tenth percentile over interleaved runs."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.perf_counter() + SECONDS * len(candidates)
    while time.perf_counter() < end or any(len(t) < 3 for t in times.values()):
        for name, run in candidates.items():
            start = time.thread_time()
            run()
            times[name].append(time.thread_time() - start)
    return {name: 1e3 * float(np.percentile(t, 10)) for name, t in times.items()}


def bench_quantize() -> Table:
    x = np.random.default_rng(0).standard_normal(QUANTIZED_SHAPE).astype(np.float32)
    rows = []
    for name in [*FORMATS, "amxfp4_b16", "mxfp4_b16"]:
        fmt = get_format(name)
        packed = fmt.quantize(x)
        encode = helper.make_node("QuantizeBlock", ["X"], ["codes", "scales"], domain="mxcompile", format=name)
        decode = helper.make_node("DequantizeBlock", ["codes", "scales"], ["Y"], domain="mxcompile", format=name)
        encoded = {"codes": packed.codes, "scales": packed.scales}
        for op, candidates in {
            "QuantizeBlock": {
                "C++": bound_run(encode, {"X": x}, {}),
                "NumPy": lambda fmt=fmt: fmt.quantize(x),
            },
            "DequantizeBlock": {
                "C++": bound_run(decode, encoded, {}),
                "NumPy": lambda fmt=fmt, packed=packed: fmt.dequantize(packed),
            },
        }.items():
            ms = race(candidates)
            speed = x.size / ms["C++"] / 1e3
            rows.append([op, name, ms["C++"], speed, ms["NumPy"], ms["NumPy"] / ms["C++"]])
    columns = {"op": "", "format": "", "C++ ms": ".3f", "Melem/s": ".0f", "NumPy ms": ".1f", "NumPy / C++": ".0f"}
    return Table(f"{list(QUANTIZED_SHAPE)}, float32", columns, rows)


def bench_matmul() -> Table:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((N, K)).astype(np.float32)
    rows = []
    for m in ROWS:
        a = {"A": rng.standard_normal((m, K)).astype(np.float32)}
        matmul = helper.make_node("MatMul", ["A", "W"], ["Y"])
        candidates = {"float32": bound_run(matmul, a, {"W": np.ascontiguousarray(w.T)})}
        for name in FORMATS:
            packed = get_format(name).quantize(w)
            constants = {"B_codes": packed.codes, "B_scales": packed.scales}
            for a_format in (name, NONE):
                node = helper.make_node(
                    "MatMulBlock",
                    ["A", "B_codes", "B_scales"],
                    ["Y"],
                    domain="mxcompile",
                    a_format=a_format,
                    b_format=name,
                    k=K,
                )
                candidates[f"{a_format} x {name}"] = bound_run(node, a, constants)
        ms = race(candidates)
        for name, value in ms.items():
            gflops = 2 * m * K * N / value / 1e6
            rows.append([m, name, value, gflops, ms["float32"] / value])
    columns = {"m": "d", "A x B": "", "ms": ".3f", "GFLOPS": ".0f", "float32 / this": ".2f"}
    return Table(f"MatMul [m, {K}] x [{K}, {N}]; float32 is onnxruntime's own", columns, rows)


def main() -> None:
    arguments = parser("Speed of the custom ops on one thread.").parse_args()
    info = library_info()
    print(f"mxcompile {info.version}, {info.isa}, 1 thread\n")
    report(arguments, bench_quantize(), bench_matmul())


if __name__ == "__main__":
    main()
