"""Where values come from: weights, the cache or this run, through the operators that only arrange or pick elements."""

import dataclasses
from typing import Final

import onnx_ir as ir

from mxcompile.cost.tensors import Call, Decoded, Tensor
from mxcompile.ops import DEQUANTIZE, DOMAIN

ARRANGES: Final = frozenset(
    {"Cast", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
"""Operators that give all elements of their first input, perhaps several times, and nothing else."""

PICKS: Final = frozenset({"Gather", "Slice", "Split"})
"""Operators that give some elements of their first input, and nothing else."""


def is_decoded_by_readers(value: ir.Value) -> bool:
    """Whether what is decoded goes to products and nowhere else; these decode it themselves."""
    if value.is_graph_output() or not value.uses():
        return False
    return all(
        reader.op_type in ("Gemm", "MatMul")
        or (reader.op_type in ARRANGES | {"Slice"} and all(map(is_decoded_by_readers, reader.outputs)))
        for reader, _ in value.uses()
    )


def trace(call: Call, result: Tensor) -> Tensor:
    """The result with where it comes from."""
    given = [each for each in call.inputs if each is not None]
    constant = bool(given) and all(each.is_static for each in given)
    if (call.op_type, call.domain) == (DEQUANTIZE, DOMAIN) and len(given) > 1:
        decoded = Decoded(call.value("format", ""), given[0].stored, given[1].stored)
        return dataclasses.replace(result, origin=given[0].origin, decoded=decoded)
    if given and call.op_type in ARRANGES and call.domain == "":
        source = None if given[0].origin == "activation" else given[0].stored
        return dataclasses.replace(result, origin=given[0].origin, source=source, decoded=given[0].decoded)
    if given and call.op_type in PICKS and call.domain == "" and (constant or given[0].origin == "cache"):
        return dataclasses.replace(result, origin=given[0].origin, decoded=given[0].decoded)
    if given and call.op_type == "Slice" and given[0].decoded is not None:
        return dataclasses.replace(result, origin=given[0].origin, decoded=given[0].decoded)
    if call.op_type == "Concat" and any(each.origin == "cache" for each in given):
        return dataclasses.replace(result, origin="cache")
    return dataclasses.replace(result, origin="constant") if constant else result
