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

T is float32 or float16; everything is computed in float32. Where both operands are integers with one scale a row, the
library sums them exactly and rounds three times at the end, so there it may differ from the body by a few units in the
last place, being the more exact one. So it is where both operands are nvfp4: it sums blocks exactly and multiplies by
the tensor scales at the end, where the body rounds their products with every scale and element.

- codes have X's shape with the blocked axis of k elements replaced by ``ceil(k * bits / 8)`` bytes, the first code in
  the lowest bits: two 4-bit codes a byte, low nibble first; unused bits at the end are 0. scales have X's shape with
  the blocked axis replaced by ``scale_groups(k)``, one a block in most formats, and a last axis of
  ``scales_per_block`` bytes (amxfp4: positive and negative E5M2 byte; mxfp4: E8M0 byte; see each format's docstring).
- DequantizeBlock's ``axis`` counts on the rank of codes; ``size`` is k, 0 stands for as many as the bytes hold.
- MatMulBlock takes A ``[..., m, k]`` and rows of k in B: B_codes ``[..., n, bytes]``, B_scales
  ``[..., n, groups, s]``, bias ``[n]``; Y is ``[..., m, n]``, batch dimensions broadcast. A is quantized
  on the fly along its last axis by ``a_format``; ``"none"`` keeps it as it is. A ``k`` of 0 stands for the length of
  A's last axis, where that is known at run time only (attention probabilities times values).

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
    return [_quantize_body(known), _dequantize_body(known), _matmul_body(known, unquantized_a=NONE in names)]


def _quantize_body(formats: Sequence[Format]) -> ir.Function:
    op, (x,) = GraphWriter(), _inputs("X")
    x32 = op.to(x, ir.DataType.FLOAT)
    rows = _Rows(op, x32)
    some = _without_empty_axes(op, rows.bring(op, x32, rows.size))

    def encode(fmt: Format) -> Write:
        def write(op: GraphWriter) -> Sequence[ir.Value]:
            codes, scales = fmt.emit_encode_rows(op, some)
            first, bits = op.vector([0] * 3), fmt.element.bits
            codes = op.Slice(codes, first, op.Shape(some))
            packed = op.pack(codes, bits)
            packed = op.Slice(packed, first, op.Concat(rows.outer, op.packed_size(rows.size, bits), axis=0))
            groups = fmt.emit_scale_groups(op, rows.size)
            return packed, op.Slice(scales, first, op.Concat(rows.outer, groups, axis=0))

        return write

    codes, scales = op.branch([(fmt.name, encode(fmt)) for fmt in formats], "format")
    groups, per_group = op.Split(op.Shape(scales, start=2), axis=0, num_outputs=2, _outputs=2)
    outputs = {
        "codes": rows.restore(op, codes, op.Shape(codes, start=2)),
        "scales": rows.restore(op, op.to(scales, ir.DataType.UINT8), groups, per_group),
    }
    return _function(QUANTIZE, op, [x], outputs, {"format": None, "axis": -1})


def _dequantize_body(formats: Sequence[Format]) -> ir.Function:
    op, (packed, scales) = GraphWriter(), _inputs("codes", "scales")
    rows = _Rows(op, packed)
    position = op.Shape(rows.before)
    groups = op.Slice(op.Shape(scales), position, op.Add(position, op.vector([1])))
    some_codes = _without_empty_axes(op, rows.bring(op, packed, rows.size))
    scales32 = op.to(rows.bring(op, scales, groups, op.Shape(scales, start=-1)), ir.DataType.INT32)
    some_scales = _without_empty_axes(op, scales32)
    size = op.int_attribute("size")

    def decode(fmt: Format) -> Write:
        def write(op: GraphWriter) -> Sequence[ir.Value]:
            bits = fmt.element.bits
            stored = op.Div(op.Mul(rows.size, op.vector([8])), op.vector([bits]))
            wanted = op.Where(op.Equal(size, op.vector([0])), stored, size)
            some, groups = (op.Max(count, op.vector([1])) for count in (wanted, fmt.emit_scale_groups(op, wanted)))
            codes = op.unpack(_fit(op, some_codes, op.packed_size(some, bits)), bits)
            scales = _fit(op, some_scales, groups, op.vector([fmt.scales_per_block]))
            x = fmt.emit_decode_rows(op, op.Slice(codes, op.vector([0]), some, op.LAST), scales)
            return (op.Slice(x, op.vector([0] * 3), op.Concat(rows.outer, wanted, axis=0)),)

        return write

    (x,) = op.branch([(fmt.name, decode(fmt)) for fmt in formats], "format")
    outputs = {"X_hat": rows.restore(op, x, op.Shape(x, start=2))}
    return _function(DEQUANTIZE, op, [packed, scales], outputs, {"format": None, "axis": -1, "size": 0})


def _without_empty_axes(op: GraphWriter, x: ir.Value) -> ir.Value:
    """``x`` with empty axes padded to one: onnxruntime's reductions give wrong shapes for empty tensors."""
    shape = op.Shape(x)
    missing = op.Sub(op.Max(shape, op.vector([1])), shape)
    return op.op("Pad", [x, op.Concat(op.Sub(shape, shape), missing, axis=0)])


def _fit(op: GraphWriter, x: ir.Value, *sizes: ir.Value) -> ir.Value:
    """``x`` with its axes from 2 on cut, or padded with zeros, to these sizes; of well-formed inputs they are that.

    Shape inference also looks into the branches of formats that are not taken, where nothing else fits.
    """
    wanted = op.Concat(*sizes, axis=0)
    padded = op.Pad(x, op.Concat(op.vector([0] * (4 + len(sizes))), wanted, axis=0))
    starts, axes = op.vector([0] * len(sizes)), op.vector(range(2, 2 + len(sizes)))
    return op.op("Slice", [padded, starts, wanted, axes])


def _matmul_body(formats: Sequence[Format], unquantized_a: bool) -> ir.Function:
    op, (a, b_codes, b_scales, bias) = GraphWriter(), _inputs("A", "B_codes", "B_scales", "bias")
    a32 = op.to(a, ir.DataType.FLOAT)
    length = _row_length(op, a32)

    def fake_quantized(fmt: Format) -> Write:
        return lambda op: (_fake_quantize(op, a32, length, fmt),)

    def as_it_is(op: GraphWriter) -> Sequence[ir.Value]:
        return (op.Identity(a32),)

    choices: list[tuple[str, Write]] = [(NONE, as_it_is)] if unquantized_a else []
    (a_hat,) = op.branch([*choices, *((fmt.name, fake_quantized(fmt)) for fmt in formats)], "a_format")

    k = ir.RefAttr("size", "k", ir.AttributeType.INT)
    b_format = ir.RefAttr("format", "b_format", ir.AttributeType.STRING)
    b_hat = op.op(DEQUANTIZE, [b_codes, b_scales], {"format": b_format, "axis": -1, "size": k}, domain=DOMAIN)
    b_hat = op.Slice(b_hat, op.vector([0]), length, op.LAST)  # a k of 0 decodes all that bytes hold
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


def _fake_quantize(op: GraphWriter, a: ir.Value, length: ir.Value, fmt: Format) -> ir.Value:
    """``fmt.fake_quantize(a)`` of rows of that length, without packing codes in between."""
    size = op.Max(length, op.vector([1]))
    rows = op.Reshape(a, op.Concat(op.vector([1, -1]), size, axis=0))
    # One row more, so that there is one: onnxruntime's reductions give wrong shapes for empty tensors.
    zeros = op.Expand(op.float32(0), op.Concat(op.vector([1, 1]), size, axis=0))
    codes, scales = fmt.emit_encode_rows(op, op.Concat(rows, zeros, axis=1))
    decoded = fmt.emit_decode_rows(op, op.to(codes, ir.DataType.INT32), op.to(scales, ir.DataType.INT32))
    decoded = op.Slice(decoded, op.vector([0, 0]), op.Shape(rows, start=1), op.vector([1, 2]))
    return op.op("Reshape", [decoded, op.Shape(a)], {"allowzero": 1})


def _row_length(op: GraphWriter, a: ir.Value) -> ir.Value:
    """The attribute ``k``, or, where that leaves it to A, the length of A's last axis: int64 ``[1]``."""
    k = op.int_attribute("k")
    unknown = op.Squeeze(op.Equal(k, op.vector([0])))
    (length,) = op.choose(unknown, lambda op: (op.Shape(a, start=-1),), lambda op: (op.Identity(k),))
    return length


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
