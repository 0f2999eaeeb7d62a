"""Finds the tensors of a decoder's key-value cache that can be kept packed, and says why others cannot."""

import dataclasses
from typing import Final

import onnx_ir as ir

from mxcompile.formats import Format, get_format
from mxcompile.kv_cache import HEAD_DIM, SEQUENCE, Axis, CacheFormat, is_float_past, present_of
from mxcompile.ops import DOMAIN, QUANTIZE

BLOCK: Final = 32
"""Tokens that share a scale where a format of the values has one scale a row."""

_SWAPPED: Final = (0, 1, 3, 2)
_TOKENS: Final = (2, -2)
_LAST: Final = (3, -1)
"""Axes of ``[batch, heads, tokens, head_dim]``."""


@dataclasses.dataclass(frozen=True)
class CacheTensor:
    """The keys or the values of a layer: ``present = Concat(past, new)``, which only quantizers and Shapes read.

    Attributes:
        past: The input ``[batch, heads, past tokens, head_dim]``.
        present: The output ``[batch, heads, all tokens, head_dim]``.
        append: The Concat that makes it.
        quantizers: The QuantizeBlock nodes that read it, all in the same format and along the same axis; blocks along
            the sequence are read through a Transpose.
        packing: The axis, and the format in which the tensor can grow: see `blocked`.
        past_shapes: The Shape nodes that read the input.
        present_shapes: The Shape nodes that read the output.
    """

    past: ir.Value
    present: ir.Value
    append: ir.Node
    quantizers: tuple[ir.Node, ...]
    packing: CacheFormat
    past_shapes: tuple[ir.Node, ...]
    present_shapes: tuple[ir.Node, ...]

    @property
    def name(self) -> str:
        """Name of the input."""
        assert self.past.name is not None  # by find_cache
        return self.past.name

    @property
    def new(self) -> ir.Value:
        """The new tokens, ``[batch, heads, new tokens, head_dim]``."""
        value = self.append.inputs[1]
        assert value is not None  # by find_cache
        return value

    @property
    def head_dim(self) -> int:
        """Elements of a token in a head."""
        assert self.past.shape is not None  # by find_cache
        size = self.past.shape[3]
        assert isinstance(size, int)  # by find_cache
        return size


def find_cache(model: ir.Model) -> tuple[list[CacheTensor], dict[str, str]]:
    """The tensors of the float cache that can be packed, and why the others cannot, by the names of their inputs.

    A tensor that is packed already is in neither. Only the main graph has a cache: its inputs and outputs.
    """
    found, reasons = [], {}
    for past in model.graph.inputs:
        if past.name is not None and is_float_past(past.name):
            result = _examine(model.graph, past, past.name)
            if isinstance(result, CacheTensor):
                found.append(result)
            else:
                reasons[past.name] = result
    return found, reasons


def _examine(graph: ir.Graph, past: ir.Value, name: str) -> CacheTensor | str:
    """The tensor, or why it stays in float."""
    if past.shape is None or len(past.shape) != 4 or not isinstance(past.shape[3], int):
        return f"its shape is {past.shape}, not [batch, heads, tokens, head_dim] with a known head_dim"
    present = next((value for value in graph.outputs if value.name == present_of(name)), None)
    append = present.producer() if present is not None else None
    if present is None or append is None:
        return f"the model does not give it back as {present_of(name)}"
    if append.op_type == "If":
        return f"{present.name} comes from the branches of {_named(append)}; only a cache in the main graph is packed"
    if not _appends(append, past):
        return f"{present.name} comes from {_named(append)}, which does more than to put new tokens behind {name}"
    past_shapes, rest = _split_readers(past)
    others = [node for node in rest if node is not append]
    if others:
        return f"{_named(others[0])} reads it too"
    present_shapes, readers = _split_readers(present)
    quantizers = _quantizers(readers)
    if isinstance(quantizers, str):
        return f"{present.name} is read by {quantizers}, in float"
    if any(node.graph is not graph for _, node in quantizers):
        return f"{present.name} is read inside a branch"
    kinds = {(axis, node.attributes["format"].as_string()) for axis, node in quantizers}
    if len(kinds) != 1:
        return f"{present.name} is read in {len(kinds)} formats" if kinds else f"nothing reads {present.name}"
    ((axis, fmt),) = kinds
    packing = CacheFormat(get_format(fmt if axis == HEAD_DIM else blocked(fmt)), axis)
    nodes = tuple(node for _, node in quantizers)
    tensor = CacheTensor(past, present, append, nodes, packing, past_shapes, present_shapes)
    return _obstacle(packing.format, axis) or tensor


def blocked(fmt: str) -> str:
    """The format for a sequence that grows: of a format with a scale a row, the one with blocks of `BLOCK`."""
    return fmt if get_format(fmt).block_size else f"{fmt}_b{BLOCK}"


def _appends(node: ir.Node, past: ir.Value) -> bool:
    if (node.op_type, node.domain) != ("Concat", "") or node.attributes["axis"].as_int() not in _TOKENS:
        return False
    return len(node.inputs) == 2 and node.inputs[0] is past and node.inputs[1] is not past


def _split_readers(value: ir.Value) -> tuple[tuple[ir.Node, ...], list[ir.Node]]:
    """The Shape nodes among the value's readers, and the others."""
    readers = list(dict.fromkeys(node for node, _ in value.uses()))
    shapes = [node for node in readers if (node.op_type, node.domain) == ("Shape", "")]
    return tuple(shapes), [node for node in readers if node not in shapes]


def _quantizers(readers: list[ir.Node]) -> list[tuple[Axis, ir.Node]] | str:
    """The quantizers of a present tensor and what their blocks lie along; else the first reader that is none."""
    found: list[tuple[Axis, ir.Node]] = []
    for reader in readers:
        swaps = (reader.op_type, reader.domain) == ("Transpose", "")
        swaps = swaps and tuple(reader.attributes.get_ints("perm", ())) == _SWAPPED
        swaps = swaps and not reader.outputs[0].is_graph_output()
        axis: Axis = SEQUENCE if swaps else HEAD_DIM
        for node in [node for node, _ in reader.outputs[0].uses()] if swaps else [reader]:
            if not _quantizes_rows(node):
                return _named(node)
            found.append((axis, node))
    return found


def _quantizes_rows(node: ir.Node) -> bool:
    return (node.op_type, node.domain) == (QUANTIZE, DOMAIN) and node.attributes.get_int("axis", -1) in _LAST


def _obstacle(fmt: Format, axis: Axis) -> str | None:
    """Why tensors of the format cannot grow: what is stored must not depend on later tokens. None if they can."""
    if fmt.per_tensor:
        return f"{fmt.name} scales by the largest element of the whole tensor, which later tokens may change"
    if axis == SEQUENCE and not fmt.grows:
        return f"blocks of {fmt.name} depend on the length of the whole sequence"
    return None


def _named(node: ir.Node) -> str:
    return f"{node.op_type} {node.name}" if node.name else node.op_type
