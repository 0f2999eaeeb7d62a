"""Products of float32 rows with packed weights, by our kernels and by others: how each is made and timed.

All candidates of a race take turns in one process, so that what disturbs one disturbs all. Compare ratios: single times
mean little on a shared machine.
"""

import contextlib
import dataclasses
import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from mxcompile.formats import get_format
from mxcompile.runtime import create_session

Array = npt.NDArray[Any]
Run = Callable[[], object]
Make = Callable[["Case", Array], Run]

FORMATS = ("amxfp4", "mxfp4", "dint4")
"""Formats of both operands, of integers those of B."""

COLD_BYTES = 120e6
"""Weights that take turns where they shall come from memory: several times the largest cache of a core's share."""

RIVAL_BITS = {"float32": 32.0, "MatMulNBits": 5.0, "OpenVINO MXFP4": 4.25}
"""What a weight takes in memory, scales included (MatMulNBits: blocks of 32 with a float32 scale)."""

SETTLE = 0.1
"""Seconds before a run on several threads: about half as long the threads of the session before wait busily for more
work."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One product: A ``[m, k]`` with constant weights ``[k, n]`` on so many threads.

    Attributes:
        cold: Whether weights shall come from memory.
    """

    k: int
    n: int
    m: int
    threads: int = 1
    cold: bool = False


def options(threads: int) -> onnxruntime.SessionOptions:
    """Options of a session on so many threads."""
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    return made


def bits_of(name: str) -> float:
    """Bits of a weight of a candidate."""
    return RIVAL_BITS.get(name) or get_format(pair_of(name)[1]).bits_per_element


def pair_of(name: str) -> tuple[str, str]:
    """Formats of A and B by a format's name, or by "a x b"."""
    a, _, b = name.partition(" x ")
    if b:
        return a, b
    return ("int8" if name.startswith(("dint", "int")) else name), name


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
    """The MatMulNBits of onnxruntime."""
    return with_nbits(float_model(w))


def with_nbits(model: onnx.ModelProto, nodes: list[str] | None = None) -> onnx.ModelProto:
    """The graph with MatMulNBits, by onnxruntime's quantizer: 4 bits in blocks of 32, int8 products.

    Args:
        model: A graph with MatMul; changed.
        nodes: Names of those to replace; None: all.
    """
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    logging.getLogger().setLevel(logging.WARNING)  # importing it makes everybody report every node
    config = nbits.DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer = nbits.MatMulNBitsQuantizer(model, nodes_to_include=nodes, algo_config=config)
    quantizer.process()
    replaced: onnx.ModelProto = quantizer.model.model
    return replaced


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


def openvino_maker(w: Array) -> Make | None:
    """OpenVINO with MXFP4 weights, compressed by nncf; None where they are not installed."""
    with contextlib.redirect_stdout(sys.stderr):  # nncf reports on stdout, which belongs to our tables
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


def makers(w: Array, formats: Iterable[str] = FORMATS) -> dict[str, Make]:
    """For each candidate, how to make a function that multiplies, with weights of its own."""

    def ours(model: onnx.ModelProto) -> Make:
        content = model.SerializeToString()
        return lambda case, a: bind(create_session(content, threads=case.threads), a)

    def stock(model: onnx.ModelProto) -> Make:
        content = model.SerializeToString()
        return lambda case, a: bind(onnxruntime.InferenceSession(content, options(case.threads)), a)

    made = {"float32": stock(float_model(w)), "MatMulNBits": stock(nbits_model(w))}
    openvino = openvino_maker(w)
    if openvino is not None:
        made["OpenVINO MXFP4"] = openvino
    return made | {name: ours(block_model(w, *pair_of(name))) for name in formats}


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
        time.sleep(pause)
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


def candidates_of(case: Case, made: Mapping[str, Make]) -> dict[str, Run]:
    """The candidates, ready to run: with one row so many of each in turns that weights come from memory."""
    a = np.random.default_rng(1).standard_normal((case.m, case.k)).astype(np.float32)
    candidates = {}
    for name, make in made.items():
        copies = int(np.ceil(COLD_BYTES / (case.k * case.n * bits_of(name) / 8))) if case.cold else 1
        candidates[name] = in_turns([make(case, a) for _ in range(copies)])
    for run in candidates.values():
        if case.threads > 1:
            time.sleep(SETTLE)
        for _ in range(24 if case.cold else 1):  # every session's first run allocates
            run()
    return candidates
