"""The custom ops of the domain ``mxcompile``: their contract, and their function bodies.

A compiled model carries the body of every op it uses, so that it also runs in an onnxruntime without our library:
QuantizeBlock and DequantizeBlock give the same bits there, MatMulBlock differs by float32 accumulation order only.
With the library registered onnxruntime runs its kernels instead of the bodies.

=================  ==========================================  ===================================================
op                 inputs -> outputs                           attributes
=================  ==========================================  ===================================================
QuantizeBlock      X (T) -> codes uint8, scales uint8          format: string, axis: int = -1
DequantizeBlock    codes, scales -> X_hat float32              format: string, axis: int = -1, size: int = 0
MatMulBlock        A (T), B_codes, B_scales [, bias (T)] -> Y  a_format: string, b_format: string, k: int
=================  ==========================================  ===================================================

T is float32 or float16; everything is computed in float32.

- codes have X's shape with the blocked axis of k elements replaced by ``ceil(k / 2)`` bytes, low nibble first, a
  ragged tail nibble 0. scales have X's shape with the blocked axis replaced by ``ceil(k / block_size)``, and a last
  axis of ``scales_per_block`` (amxfp4: positive and negative E5M2 byte; mxfp4: E8M0 byte).
- DequantizeBlock's ``axis`` counts on the rank of codes; ``size`` is k, 0 stands for two elements a byte.
- MatMulBlock takes A ``[..., m, k]`` and rows of k in B: B_codes ``[..., n, ceil(k / 2)]``, B_scales
  ``[..., n, ceil(k / block_size), s]``, bias ``[n]``; Y is ``[..., m, n]``, batch dimensions broadcast. A is quantized
  on the fly along its last axis by ``a_format``; ``"none"`` keeps it as it is.

One body serves an op in all the formats of a model: it branches on the format attribute with ``If``, which
onnxruntime folds away at session creation. (Function overloads would say the same, but onnxruntime 1.20.1 and 1.23.2
run the wrong one.)
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from mxcompile.formats import NONE, Format, get_format
from mxcompile.graph_writer import GraphWriter, Write

DOMAIN = "mxcompile"
VERSION = 1
QUANTIZE = "QuantizeBlock"
DEQUANTIZE = "DequantizeBlock"
MATMUL = "MatMulBlock"

OPSET = 21
"""Opset of the bodies, and so of every compiled model: the newest that onnxruntime 1.20.1 reads."""


class _Rows:
    """A tensor's shape around one axis: ``before + [size] + after``, with the axis from the function's attribute."""

    def __init__(self, op: GraphWriter, x: ir.Value) -> None:
        shape = op.Shape(x)
        rank = op.Shape(shape)
        axis = op.int_attribute("axis")
        axis = op.Where(op.Less(axis, op.vector([0])), op.Add(axis, rank), axis)
        following = op.Add(axis, op.vector([1]))
        self.before = op.Slice(shape, op.vector([0]), axis)
        self.size = op.Slice(shape, axis, following)
        self.after = op.Slice(shape, following, rank)
        self.outer = op.Concat(op.product(self.before), op.product(self.after), axis=0)

    def bring(self, op: GraphWriter, x: ir.Value, *trailing: ir.Value) -> ir.Value:
        """``[before, n, after, *trailing]`` -> ``[outer 0, outer 1, n, *trailing]``, n being the axis itself."""
        first, second = op.Split(self.outer, axis=0, num_outputs=2, _outputs=2)
        x = op.Reshape(x, op.Concat(first, *trailing[:1], second, *trailing[1:], axis=0), allowzero=1)
        return op.op("Transpose", [x], {"perm": [0, 2, 1, 3][: 2 + len(trailing)]})

    def restore(self, op: GraphWriter, x: ir.Value, *trailing: ir.Value) -> ir.Value:
        """The inverse of `bring`."""
        x = op.Transpose(x, perm=[0, 2, 1, 3][: 2 + len(trailing)])
        shape = op.Concat(self.before, *trailing[:1], self.after, *trailing[1:], axis=0)
        return op.op("Reshape", [x, shape], {"allowzero": 1})


def functions(formats: Iterable[str]) -> list[ir.Function]:
    """The bodies of all three ops for a model that uses these formats (``none`` may be among them).

    Args:
        formats: Format names as they stand in the ops' attributes, at least one of them a real format.

    Raises:
        FormatError: An unknown name.
    """
    names = set(formats)
    known = [get_format(name) for name in sorted(names - {NONE})]
    return [_quantize_body(known), _dequantize_body(known), _matmul_body(unquantized_a=NONE in names)]


def _quantize_body(formats: Sequence[Format]) -> ir.Function:
    op, (x,) = GraphWriter(), _inputs("X")
    x32 = op.to(x, ir.DataType.FLOAT)
    rows = _Rows(op, x32)
    x32 = rows.bring(op, x32, rows.size)

    # onnxruntime's reductions give wrong shapes for empty tensors: an empty axis is padded to one and cut off again.
    one = op.vector([1])
    outer = op.Max(rows.outer, one)

    def encode(fmt: Format) -> Write:
        def write(op: GraphWriter) -> Sequence[ir.Value]:
            block = op.vector([fmt.block_size])
            blocks = op.Div(op.Add(rows.size, op.vector([fmt.block_size - 1])), block)
            some_blocks = op.Max(blocks, one)
            size = op.Mul(some_blocks, block)
            padding = op.Sub(op.Concat(outer, size, axis=0), op.Concat(rows.outer, rows.size, axis=0))
            padded = op.Pad(x32, op.Concat(op.vector([0] * 3), padding, axis=0))
            shape = op.Concat(outer, some_blocks, block, axis=0)
            codes, scales = fmt.emit_encode(op, op.Reshape(padded, shape))
            scales = op.Slice(scales, op.vector([0] * 3), op.Concat(rows.outer, blocks, axis=0))
            return op.Reshape(codes, op.Concat(outer, size, axis=0)), scales

        return write

    codes, scales = op.branch([(fmt.name, encode(fmt)) for fmt in formats], "format")
    two = op.vector([2])
    bytes_ = op.Div(op.Add(rows.size, one), two)
    codes = op.Slice(codes, op.vector([0] * 3), op.Concat(rows.outer, op.Mul(bytes_, two), axis=0))
    pairs = op.Reshape(codes, op.Concat(rows.outer, bytes_, two, axis=0), allowzero=1)
    low, high = op.Split(pairs, axis=-1, num_outputs=2, _outputs=2)
    packed = op.Add(low, op.Mul(high, op.float32(16)))
    packed = op.to(op.Squeeze(packed, op.LAST), ir.DataType.UINT8)
    blocks, per_block = op.Split(op.Shape(scales, start=2), axis=0, num_outputs=2, _outputs=2)
    scales = rows.restore(op, op.to(scales, ir.DataType.UINT8), blocks, per_block)
    outputs = {"codes": rows.restore(op, packed, bytes_), "scales": scales}
    return _function(QUANTIZE, op, [x], outputs, {"format": None, "axis": -1})


def _dequantize_body(formats: Sequence[Format]) -> ir.Function:
    op, (packed, scales) = GraphWriter(), _inputs("codes", "scales")
    rows = _Rows(op, packed)
    codes = rows.bring(op, packed, rows.size)
    blocks_at = op.Add(op.Shape(rows.before), op.vector([0]))
    blocks = op.Slice(op.Shape(scales), blocks_at, op.Add(blocks_at, op.vector([1])))
    per_block = op.Shape(scales, start=-1)
    scale_codes = op.to(rows.bring(op, scales, blocks, per_block), ir.DataType.INT32)

    low = op.BitwiseAnd(codes, op.constant(np.array(15, np.uint8)))
    high = op.BitShift(codes, op.constant(np.array(4, np.uint8)), direction="RIGHT")
    nibbles = op.Concat(op.Unsqueeze(low, op.LAST), op.Unsqueeze(high, op.LAST), axis=-1)
    stored = op.Mul(rows.size, op.vector([2]))
    nibbles = op.Reshape(nibbles, op.Concat(rows.outer, stored, axis=0), allowzero=1)
    nibbles = op.to(nibbles, ir.DataType.INT32)

    def decode(fmt: Format) -> Write:
        def write(op: GraphWriter) -> Sequence[ir.Value]:
            block = op.vector([fmt.block_size])
            padding = op.Concat(op.vector([0] * 5), op.Sub(op.Mul(blocks, block), stored), axis=0)
            shape = op.Concat(rows.outer, blocks, block, axis=0)
            # Shape inference also looks into branches that are not taken: there the number of scales must fit too.
            count = op.vector([fmt.scales_per_block])
            scales = op.Pad(scale_codes, op.Concat(op.vector([0] * 7), count, axis=0))
            scales = op.Slice(scales, op.vector([0]), count, op.LAST)
            x = fmt.emit_decode(op, op.Reshape(op.Pad(nibbles, padding), shape, allowzero=1), scales)
            return (op.Reshape(x, op.Concat(rows.outer, op.Mul(blocks, block), axis=0), allowzero=1),)

        return write

    (x,) = op.branch([(fmt.name, decode(fmt)) for fmt in formats], "format")
    size = op.int_attribute("size")
    size = op.Where(op.Equal(size, op.vector([0])), stored, size)
    x = rows.restore(op, op.Slice(x, op.vector([0]), size, op.LAST), size)
    return _function(DEQUANTIZE, op, [packed, scales], {"X_hat": x}, {"format": None, "axis": -1, "size": 0})


def _matmul_body(unquantized_a: bool) -> ir.Function:
    op, (a, b_codes, b_scales, bias) = GraphWriter(), _inputs("A", "B_codes", "B_scales", "bias")
    a32 = op.to(a, ir.DataType.FLOAT)
    k = ir.RefAttr("size", "k", ir.AttributeType.INT)

    def quantized(op: GraphWriter) -> Sequence[ir.Value]:
        a_format = ir.RefAttr("format", "a_format", ir.AttributeType.STRING)
        packed = op.op_multi_out(QUANTIZE, [a32], {"format": a_format, "axis": -1}, num_outputs=2, domain=DOMAIN)
        return (op.op(DEQUANTIZE, packed, {"format": a_format, "axis": -1, "size": k}, domain=DOMAIN),)

    def as_it_is(op: GraphWriter) -> Sequence[ir.Value]:
        return (op.Identity(a32),)

    choices: list[tuple[str, Write]] = [(NONE, as_it_is)] if unquantized_a else []
    (a_hat,) = op.branch([*choices, ("", quantized)], "a_format")

    b_format = ir.RefAttr("format", "b_format", ir.AttributeType.STRING)
    b_hat = op.op(DEQUANTIZE, [b_codes, b_scales], {"format": b_format, "axis": -1, "size": k}, domain=DOMAIN)
    batch, rows = op.Shape(b_hat, end=-2), op.Shape(b_hat, start=-2)
    n, columns = op.Split(rows, axis=0, num_outputs=2, _outputs=2)
    b_hat = op.Reshape(b_hat, op.Concat(op.product(batch), rows, axis=0), allowzero=1)
    b_hat = op.Transpose(b_hat, perm=[0, 2, 1])
    b_hat = op.Reshape(b_hat, op.Concat(batch, columns, n, axis=0), allowzero=1)

    # Gemm's third input may be missing, and then counts as zero: the only operator to pass an optional bias through.
    left = op.CastLike(op.constant(np.zeros((1, 1), np.float32)), a)
    right = op.Expand(left, op.Concat(op.vector([1]), n, axis=0))
    offset = op.Reshape(op.to(op.Gemm(left, right, bias), ir.DataType.FLOAT), n, allowzero=1)
    y = op.CastLike(op.Add(op.MatMul(a_hat, b_hat), offset), a)
    attributes = {"a_format": None, "b_format": None, "k": None}
    return _function(MATMUL, op, [a, b_codes, b_scales, bias], {"Y": y}, attributes)


def _inputs(*names: str) -> tuple[ir.Value, ...]:
    return tuple(ir.Value(name=name) for name in names)


def _function(
    name: str,
    op: GraphWriter,
    inputs: Sequence[ir.Value],
    outputs: dict[str, ir.Value],
    attributes: Mapping[str, int | None],
) -> ir.Function:
    """A function of those operators; attributes without a default (None) are required, ``k`` an int, others strings."""
    graph = ir.Graph(
        inputs, list(outputs.values()), nodes=op.nodes, opset_imports={"": OPSET, DOMAIN: VERSION}, name=name
    )
    # One numbering for the whole body: a name inside a branch must not hide one outside.
    for index, node in enumerate(ir.traversal.RecursiveGraphIterator(graph)):
        node.name = f"{node.op_type}_{index}"
        for position, output in enumerate(node.outputs):
            output.name = f"{node.op_type}_{index}_{position}"
    for output_name, value in outputs.items():
        value.name = output_name
    kinds = {
        "format": ir.AttributeType.STRING,
        "a_format": ir.AttributeType.STRING,
        "b_format": ir.AttributeType.STRING,
    }
    attrs = [ir.Attr(key, kinds.get(key, ir.AttributeType.INT), default) for key, default in attributes.items()]
    return ir.Function(DOMAIN, name, graph=graph, attributes=attrs)
