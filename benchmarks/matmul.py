"""Speed of MatMulBlock with constant weights against other products of float32 rows with packed weights.

All candidates of a table take turns in one process, so that what disturbs one disturbs all. One thread: the tenth
percentile of thread CPU time; two threads: the shortest wall-clock time. With one row the weights of each candidate
come from memory: sessions with weights of their own, more than fits any cache, take turns. Quantizing A is part of
every time. Compare ratios: single times mean little on a shared machine.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from common import Table, parser, report
from onnx import helper, numpy_helper

from mxcompile.formats import get_format
from mxcompile.runtime import create_session, library_info

Array = npt.NDArray[Any]
Run = Callable[[], object]

SHAPES = ((4096, 4096), (4096, 11008))
ROWS = (1, 4, 16, 128, 512)
PAIRS = {"amxfp4": ("amxfp4", "amxfp4"), "mxfp4": ("mxfp4", "mxfp4"), "dint4": ("int8", "dint4")}
"""Formats of A and B by the name that stands for them."""

COLD_BYTES = 120e6
"""Weights that take turns where they shall come from memory: several times the largest cache of a core's share."""

BITS = {"float32": 32.0, "MatMulNBits": 5.0, "OpenVINO MXFP4": 4.25, "amxfp4": 4.5, "mxfp4": 4.25, "dint4": 4.0}
"""What a weight takes in memory, scales included (MatMulNBits: blocks of 32 with a float32 scale)."""


SETTLE = 0.05
"""Seconds before a run on several threads: so long the threads of the session before may wait busily for more work."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One product: A ``[m, k]`` with constant weights ``[k, n]`` on so many threads."""

    k: int
    n: int
    m: int
    threads: int

    @property
    def cold(self) -> bool:
        """Whether weights shall come from memory."""
        return self.m == 1


def options(threads: int) -> onnxruntime.SessionOptions:
    """Options of a session on so many threads."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    return made


def bind(session: onnxruntime.InferenceSession, a: Array) -> Run:
    """The session as a function that runs it on ``a``."""
    binding = session.io_binding()
    binding.bind_cpu_input("A", a)
    binding.bind_output("Y", "cpu")
    return lambda: session.run_with_iobinding(binding)


def model_of(node: onnx.NodeProto, constants: Mapping[str, Array], k: int) -> onnx.ModelProto:
    """A model of one node with input A ``[m, k]`` and output Y."""
    a = helper.make_tensor_value_info("A", onnx.TensorProto.FLOAT, ["m", k])
    y = helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(x, name) for name, x in constants.items()]
    graph = helper.make_graph([node], "one-node", [a], [y], initializer=initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("mxcompile", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def float_model(w: Array) -> onnx.ModelProto:
    """The MatMul of onnxruntime with ``w [n, k]``."""
    node = helper.make_node("MatMul", ["A", "W"], ["Y"])
    return model_of(node, {"W": np.ascontiguousarray(w.T)}, w.shape[1])


def nbits_model(w: Array) -> onnx.ModelProto:
    """The MatMulNBits of onnxruntime, by its own quantizer: 4 bits in blocks of 32, int8 products."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer = MatMulNBitsQuantizer(float_model(w), algo_config=config)
    quantizer.process()
    model: onnx.ModelProto = quantizer.model.model
    return model


def block_model(w: Array, a_format: str, b_format: str) -> onnx.ModelProto:
    """MatMulBlock with ``w [n, k]``."""
    packed = get_format(b_format).quantize(w)
    node = helper.make_node(
        "MatMulBlock",
        ["A", "B_codes", "B_scales"],
        ["Y"],
        domain="mxcompile",
        a_format=a_format,
        b_format=b_format,
        k=w.shape[1],
    )
    return model_of(node, {"B_codes": packed.codes, "B_scales": packed.scales}, w.shape[1])


def openvino_maker(w: Array) -> Callable[[Case, Array], Run] | None:
    """OpenVINO with MXFP4 weights, compressed by nncf; None where they are not installed."""
    try:
        import nncf
        import openvino
    except ImportError:
        return None
    model = openvino.Core().read_model(float_model(w).SerializeToString())
    compressed = nncf.compress_weights(
        model, mode=nncf.CompressWeightsMode.MXFP4, group_size=32, ratio=1.0, all_layers=True
    )

    def make(case: Case, a: Array) -> Run:
        settings = {"INFERENCE_NUM_THREADS": case.threads, "NUM_STREAMS": 1}
        request = openvino.Core().compile_model(compressed, "CPU", settings).create_infer_request()
        tensor = openvino.Tensor(a)
        return lambda: request.infer({0: tensor}, share_inputs=True)

    return make


def makers(w: Array) -> dict[str, Callable[[Case, Array], Run]]:
    """For each candidate, how to make a function that multiplies, with weights of its own."""

    def ours(model: onnx.ModelProto) -> Callable[[Case, Array], Run]:
        content = model.SerializeToString()
        return lambda case, a: bind(create_session(content, threads=case.threads), a)

    def stock(model: onnx.ModelProto) -> Callable[[Case, Array], Run]:
        content = model.SerializeToString()
        return lambda case, a: bind(onnxruntime.InferenceSession(content, options(case.threads)), a)

    made = {"float32": stock(float_model(w)), "MatMulNBits": stock(nbits_model(w))}
    openvino = openvino_maker(w)
    if openvino is not None:
        made["OpenVINO MXFP4"] = openvino
    return made | {name: ours(block_model(w, *pair)) for name, pair in PAIRS.items()}


def in_turns(runs: Sequence[Run]) -> Run:
    """A function that calls the next of ``runs`` each time."""
    turns = itertools.cycle(runs)
    return lambda: next(turns)()


def race(
    candidates: Mapping[str, Run],
    seconds: float,
    clock: Callable[[], float],
    percentile: float = 10,
    pause: float = 0.0,
) -> dict[str, float]:
    """Milliseconds by that clock of each candidate, a percentile over runs in turns, with a pause before each."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    end = time.perf_counter() + seconds * len(candidates)
    while time.perf_counter() < end or any(len(t) < 5 for t in times.values()):
        for name, run in candidates.items():
            time.sleep(pause)
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: 1e3 * float(np.percentile(t, percentile)) for name, t in times.items()}


def read_bandwidth(seconds: float) -> float:
    """GB/s that one core reads from memory: the largest number of an array."""
    numbers = np.full(64 << 20, 2, np.int32)
    ms = race({"read": numbers.max}, seconds, time.thread_time)
    return numbers.nbytes / ms["read"] / 1e6


def bench(case: Case, made: Mapping[str, Callable[[Case, Array], Run]], seconds: float) -> list[list[str | float]]:
    """Rows of the table for one product."""
    a = np.random.default_rng(1).standard_normal((case.m, case.k)).astype(np.float32)
    candidates = {}
    for name, make in made.items():
        copies = int(np.ceil(COLD_BYTES / (case.k * case.n * BITS[name] / 8))) if case.cold else 1
        candidates[name] = in_turns([make(case, a) for _ in range(copies)])
    for run in candidates.values():
        for _ in range(24 if case.cold else 1):  # every session's first run allocates
            run()
    if case.threads == 1:
        ms = race(candidates, seconds, time.thread_time)
    else:
        ms = race(candidates, seconds, time.perf_counter, percentile=0, pause=SETTLE)
    rows: list[list[str | float]] = []
    for name, value in ms.items():
        gigabytes = case.k * case.n * BITS[name] / 8e6 / value
        ratios = [ms["float32"] / value, ms["MatMulNBits"] / value]
        rows.append([f"{case.k} x {case.n}", case.m, case.threads, name, value, *ratios, gigabytes])
    return rows


def bench_quantize(seconds: float) -> Table:
    """QuantizeBlock against a copy of its input."""
    from ops import bound_run

    x = np.random.default_rng(0).standard_normal((512, 4096)).astype(np.float32)
    target = np.empty_like(x)
    candidates: dict[str, Run] = {"memory copy": lambda: np.copyto(target, x)}
    for name in ("amxfp4", "mxfp4", "dint4", "int8"):
        node = helper.make_node("QuantizeBlock", ["X"], ["codes", "scales"], domain="mxcompile", format=name)
        candidates[name] = bound_run(node, {"X": x}, {})
    ms = race(candidates, seconds, time.thread_time)
    rows = [[name, value, x.size / value / 1e6, ms["memory copy"] / value] for name, value in ms.items()]
    columns = {"QuantizeBlock": "", "ms": ".3f", "Gelem/s": ".2f", "copy / this": ".2f"}
    return Table("[512, 4096], float32, 1 thread", columns, rows)


def bench_graph(seconds: float) -> Table:
    """Products of attention, B from the graph: eight heads of 64 over 500 positions, one or all of them asking."""
    from ops import bound_run

    rng = np.random.default_rng(0)
    rows: list[list[str | float]] = []
    for m, n, k in ((1, 500, 64), (1, 64, 500), (500, 500, 64), (500, 64, 500)):
        a, b = (rng.standard_normal((8, size, k)).astype(np.float32) for size in (m, n))
        transposed = np.ascontiguousarray(b.swapaxes(-1, -2))
        node = helper.make_node("MatMul", ["A", "B"], ["Y"])
        candidates: dict[str, Run] = {"float32": bound_run(node, {"A": a, "B": transposed}, {})}
        for name in ("amxfp4", "mxfp4"):
            packed = get_format(name).quantize(b)
            feeds = {"A": a, "B_codes": packed.codes, "B_scales": packed.scales}
            attributes = {"a_format": name, "b_format": name, "k": k}
            node = helper.make_node("MatMulBlock", list(feeds), ["Y"], domain="mxcompile", **attributes)
            candidates[name] = bound_run(node, feeds, {})
        ms = race(candidates, seconds, time.thread_time)
        shape = f"[8, {m}, {k}] x [8, {k}, {n}]"
        rows += [[shape, name, value, ms["float32"] / value] for name, value in ms.items()]
    columns = {"A x B": "", "B": "", "ms": ".3f", "float32 / this": ".2f"}
    return Table("B from the graph, 1 thread", columns, rows)


def main() -> None:
    arguments = parser("Speed of MatMulBlock with constant weights, beside others.")
    arguments.add_argument("--rows", type=int, nargs="+", default=ROWS, help="m of the products")
    arguments.add_argument("--threads", type=int, nargs="+", default=(1, 2), help="on so many threads")
    arguments.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the shapes")
    arguments.add_argument("--seconds", type=float, default=1.0, help="time for each candidate")
    chosen = arguments.parse_args()
    info = library_info()
    print(f"mxcompile {info.version}, {info.isa}\n")
    tables = []
    columns = {
        "k x n": "",
        "m": "d",
        "threads": "d",
        "weights": "",
        "ms": ".3f",
        "float32 / this": ".2f",
        "MatMulNBits / this": ".2f",
        "GB/s of weights": ".1f",
    }
    for k, n in SHAPES[: chosen.shapes]:
        made = makers(np.random.default_rng(0).standard_normal((n, k)).astype(np.float32))
        rows = []
        for threads in chosen.threads:
            for m in chosen.rows:
                rows += bench(Case(k, n, m, threads), made, chosen.seconds)
        read = read_bandwidth(chosen.seconds)
        tables.append(Table(f"One core reads {read:.1f} GB/s from memory", columns, rows))
    report(chosen, *tables, bench_graph(chosen.seconds), bench_quantize(chosen.seconds))


if __name__ == "__main__":
    main()
