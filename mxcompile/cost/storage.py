"""How an engine keeps floating-point numbers: a model in float32 runs on FP16 units with half of its bytes."""

import dataclasses
from typing import Any

import onnx_ir as ir

from mxcompile.cost.units import FLOAT_BYTES, is_float
from mxcompile.cost.workload import NodeWork, Workload


def float_bytes(model: ir.Model) -> int:
    """Bytes of the model's floating-point numbers: those of its first floating-point output, or input."""
    for value in (*model.graph.outputs, *model.graph.inputs):
        if value.dtype is not None and value.dtype.is_floating_point():
            return max(1, value.dtype.bitwidth // 8)
    return FLOAT_BYTES["float32"]


def as_kept(workload: Workload, model_bytes: int, engine_bytes: int) -> Workload:
    """The workload with floating-point numbers as the engine keeps them, where that is narrower.

    Codes and scales stay as they are. What a node reads is taken to be floating point, but for the codes that are an
    operand of a product or of DequantizeBlock: integers (ids, masks) are few.

    Args:
        workload: The counts, all dimensions given.
        model_bytes: Bytes of the model's floating-point numbers.
        engine_bytes: Bytes of the engine's.
    """
    if engine_bytes >= model_bytes:
        return workload
    nodes = tuple(_narrowed(work, model_bytes, engine_bytes) for work in workload.nodes)
    return dataclasses.replace(workload, nodes=nodes)


def _narrowed(work: NodeWork, model_bytes: int, engine_bytes: int) -> NodeWork:
    def narrow(size: Any) -> int:
        return -(-int(size) * engine_bytes // model_bytes)

    changes: dict[str, Any] = {}
    if work.kind != "quantize":
        changes["output_bytes"] = narrow(work.output_bytes)
    if work.macs:
        codes = 0 if is_float(work.a_format) else work.input_bytes - min(work.input_bytes, work.quantized * model_bytes)
        changes["input_bytes"] = codes + narrow(work.input_bytes - codes)
        if is_float(work.b_format):
            changes["weight_code_bytes"] = narrow(work.weight_code_bytes)
            changes["cache_code_bytes"] = narrow(work.cache_code_bytes)
        for key in ("a_format", "b_format"):
            if is_float(getattr(work, key)):
                changes[key] = _narrower(getattr(work, key), engine_bytes)
    elif work.kind != "dequantize":
        changes["input_bytes"] = narrow(work.input_bytes)
        changes["weight_code_bytes"] = narrow(work.weight_code_bytes)
        changes["cache_code_bytes"] = narrow(work.cache_code_bytes)
    return dataclasses.replace(work, **changes)


def _narrower(name: str, engine_bytes: int) -> str:
    return name if FLOAT_BYTES[name] <= engine_bytes else {2: "float16", 4: "float32"}[engine_bytes]
