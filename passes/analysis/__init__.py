"""Analyses: functions that look at a model and never change it."""

from mxcompile.passes.analysis.linears import Linear, OtherMatMul, classify, find_linears, find_other_matmuls
from mxcompile.passes.analysis.roles import find_heads, find_rotary, find_routers

__all__ = [
    "Linear",
    "OtherMatMul",
    "classify",
    "find_heads",
    "find_linears",
    "find_other_matmuls",
    "find_rotary",
    "find_routers",
]
