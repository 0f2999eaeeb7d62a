"""What a model takes: weights of its linear layers, and its key-value cache."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from mxcompile.formats import get_format
from mxcompile.kv_cache import DTYPES, CacheFormat, is_float_past
from mxcompile.passes import NormalizeLinears
from mxcompile.passes.analysis.linears import find_linears

if TYPE_CHECKING:
    from onnxruntime import NodeArg


def linear_weights(model: ir.Model) -> tuple[int, int]:
    """Number and bits of the weights of all linear layers of a float model, shared ones once; the model is changed."""
    NormalizeLinears()(model)
    weights = {linear.weight: linear for linear in find_linears(model)}
    counts = [(linear.k * linear.n, weight.dtype) for weight, linear in weights.items()]
    return sum(count for count, _ in counts), sum(count * dtype.bitwidth for count, dtype in counts if dtype)


@dataclasses.dataclass(frozen=True)
class Past:
    """The keys or the values of a layer in a float cache.

    Attributes:
        name: The input.
        shape: ``[batch, heads, tokens, head_dim]``, names for what has no fixed size.
        element_bytes: Bytes of a number.
    """

    name: str
    shape: tuple[int | str | None, ...]
    element_bytes: int


def find_pasts(inputs: Iterable["NodeArg"]) -> tuple[Past, ...]:
    """The inputs of a float model that are its key-value cache.

    What onnxruntime says of an input keeps the whole session in memory; this does not.
    """
    return tuple(
        Past(value.name, tuple(value.shape), np.dtype(DTYPES[value.type]).itemsize)
        for value in inputs
        if is_float_past(value.name)
    )


def cache_bytes(pasts: Iterable[Past], packed: Mapping[str, Any] | None, tokens: int) -> int:
    """Bytes of the key-value cache of one sequence: all parts, the tail of an incomplete block included.

    Args:
        pasts: The cache of the float model.
        packed: What of it is packed, see `kv_cache.describe`; None if nothing is.
        tokens: Tokens in the cache.
    """
    return sum(_past_bytes(past, packed or {}, tokens) for past in pasts)


def _past_bytes(past: Past, packed: Mapping[str, Any], tokens: int) -> int:
    """Bytes of the keys or the values of a layer."""
    form = packed.get("exceptions", {}).get(past.name, packed.get(past.name.rpartition(".")[2]))
    sizes = [dim for dim in past.shape[1:] if isinstance(dim, int)]
    if form is None:
        return math.prod(sizes) * tokens * past.element_bytes
    heads, head_dim = sizes  # only caches of four dimensions are packed
    return CacheFormat(get_format(form["format"]), form["axis"]).nbytes(1, heads, tokens, head_dim, past.element_bytes)
