"""Graphs of a few nodes to count, from text."""

from typing import Any

import models
import numpy as np
import onnx_ir as ir

from mxcompile.cost.workload import NodeWork, count

CONSTANTS: dict[str, Any] = {
    "axis": np.array([-1]),
    "scalar": np.float32(1),
    "vector": np.arange(4, dtype=np.float32),
    "two": np.array([2]),
    "zero": np.int64(0),
    "one": np.int64(1),
    "three": np.int64(3),
    "starts": np.array([1]),
    "ends": np.array([3]),
    "perm": np.array([0, 2, 1]),
    "pads": np.array([0, 0, 1, 0, 0, 1]),
    "repeats": np.array([1, 1, 2]),
    "wide": np.array([5, 1, 1, 1]),
    "flat": np.array([-1]),
    "pair": np.array([0, 1], np.float32),
    "table": np.zeros((50, 4), np.float32),
    "weight": np.zeros((4, 7), np.float32),
    "rows": np.zeros((7, 4), np.float32),
    "bias": np.zeros(7, np.float32),
    "kernel": np.zeros((6, 1, 2, 3), np.float32),
    "channels": np.zeros(6, np.float32),
    "byte": np.int8(0),
    "bytes": np.zeros((2, 3, 4), np.int8),
}


def graph(body: str, inputs: str = "float[2,3,4] x", **weights: Any) -> ir.Model:
    """A model whose last result is y; of the constants below those that it names."""
    words = set(body.replace(",", " ").replace("(", " ").replace(")", " ").split())
    constants = {name: np.asarray(value) for name, value in CONSTANTS.items() if name in words} | weights
    return models.parse(body, inputs, "float[unknown] y", constants)


def last(body: str, inputs: str = "float[2,3,4] x", **weights: Any) -> NodeWork:
    """The work of a graph's last node, nothing uncovered."""
    workload = count(graph(body, inputs, **weights))
    assert workload.uncovered == ()
    return workload.nodes[-1]
