"""Analyses: functions that look at a model and never change it."""

from mxcompile.passes.analysis.attention import (
    Attention,
    Operand,
    Scale,
    Unrecognized,
    find_attention,
    find_unrecognized,
)
from mxcompile.passes.analysis.linears import Linear, OtherMatMul, classify, find_linears, find_other_matmuls
from mxcompile.passes.analysis.roles import find_heads, find_rotary, find_routers

__all__ = [
    "Attention",
    "Linear",
    "Operand",
    "OtherMatMul",
    "Scale",
    "Unrecognized",
    "classify",
    "find_attention",
    "find_heads",
    "find_linears",
    "find_other_matmuls",
    "find_rotary",
    "find_routers",
    "find_unrecognized",
]
