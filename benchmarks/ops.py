"""Speed of QuantizeBlock and DequantizeBlock on one thread, against their NumPy definition (products: matmul.py).

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

from mxcompile.formats import FORMATS, get_format
from mxcompile.runtime import create_session, library_info

Array = npt.NDArray[Any]
QUANTIZED_SHAPE = (512, 4096)
SECONDS = 0.5
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


def main() -> None:
    arguments = parser("speed of QuantizeBlock and DequantizeBlock on one thread").parse_args()
    info = library_info()
    print(f"mxcompile {info.version}, {info.isa}, 1 thread\n")
    report(arguments, bench_quantize())


if __name__ == "__main__":
    main()
