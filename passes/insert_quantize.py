"""insert-quantize: block quantization, written out, on both operands of every selected linear layer."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import onnx_ir as ir

from mxcompile.formats import NONE, get_format
from mxcompile.formats.packing import packed_size
from mxcompile.ops import DEQUANTIZE, DOMAIN, QUANTIZE
from mxcompile.passes.analysis.linears import Linear, find_linears
from mxcompile.passes.metadata import ACTIVATIONS, LAYER, SKIPPED, WEIGHTS, provenance, record_pass
from mxcompile.passes.rewriting import UniqueNames, move_output, remove_unused

ROWS_SUFFIX = ".rows"
"""Behind the name of a ``[k, n]`` weight: the same weight as rows of K."""


class TransposedTensor(ir.LazyTensor):
    """A matrix seen transposed: a view made anew at each reading, never a copy held in memory."""

    __slots__ = ("_source",)

    def __init__(self, source: ir.TensorProtocol) -> None:
        rows, columns = source.shape.numpy()
        self._source = source
        super().__init__(lambda: ir.Tensor(source.numpy().T), dtype=source.dtype, shape=ir.Shape([columns, rows]))

    def release(self) -> None:
        """Unmaps the matrix from memory, if it is mapped from a file. No view of it may be alive."""
        release(self._source)


def release(tensor: ir.TensorProtocol | None) -> None:
    """Unmaps a tensor that is mapped from a file; it is mapped again at its next reading."""
    if isinstance(tensor, ir.ExternalTensor | TransposedTensor):
        tensor.release()


@dataclasses.dataclass(frozen=True)
class InsertQuantize(ir.passes.InPlacePass):
    """Makes a selected ``MatMul(x, weight)`` read both operands through QuantizeBlock and DequantizeBlock.

    1. The weight is quantized as rows of K: a ``[n, k]`` weight is as it is, of a ``[k, n]`` weight a lazily transposed
       initializer is registered beside it. ``rows -> QuantizeBlock -> DequantizeBlock -> Transpose -> MatMul``.
    2. ``x -> QuantizeBlock -> DequantizeBlock -> MatMul``, unless the activations' format is ``none``.
    3. Layers of one graph that share a weight, or x, in the same format share the nodes.
    4. DequantizeBlock gives float32, so in a float16 or bfloat16 graph the MatMul computes in float32 and a Cast goes
       back to the graph's type. An x that goes in without QuantizeBlock, or of a type that QuantizeBlock does not
       take (bfloat16), is cast to float32 first.

    The MatMul keeps its name, its metadata, and the name of what its readers read. Walks the main graph and its
    subgraphs; functions hold no linear layers.
    """

    name: ClassVar[str] = "insert-quantize"

    def requires(self, model: ir.Model) -> None:
        """select-formats has seen every linear layer."""
        for linear in find_linears(model):
            if not linear.node.metadata_props.keys() & {WEIGHTS, SKIPPED}:
                raise ir.passes.PreconditionError(f"MatMul {linear.node.name}: run select-formats before {self.name}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites every selected layer; the weights that are no longer read disappear."""
        linears = [linear for linear in find_linears(model) if WEIGHTS in linear.node.metadata_props]
        inserter = _Inserter(UniqueNames(model), self.name)
        for linear in linears:
            inserter.insert(linear)
        return ir.passes.PassResult(model, bool(linears))


class _Inserter:
    """What one run of the pass has inserted so far, for sharing (rule 3)."""

    def __init__(self, names: UniqueNames, pass_name: str) -> None:
        self._names = names
        self._pass = pass_name
        self._made: dict[tuple[object, ...], ir.Value] = {}
        self._rows: dict[ir.Value, ir.Value] = {}

    def insert(self, linear: Linear) -> None:
        """Rewrites one layer."""
        node = linear.node
        x, weight = node.inputs
        assert x is not None  # both operands of a MatMul are required
        dtype = linear.weight.dtype or ir.DataType.FLOAT
        if x.dtype is None:
            x.dtype = dtype  # MatMul's operands have one type
        node.replace_input_with(0, self._activation(node, x, linear.k))
        node.replace_input_with(1, self._weight(linear))
        record_pass(node, self._pass)
        remove_unused(weight)
        if dtype is not ir.DataType.FLOAT:
            self._cast_back(node, dtype)

    def _weight(self, linear: Linear) -> ir.Value:
        """Rule 1: the decoded weight, float32 ``[k, n]``."""
        node, fmt = linear.node, linear.node.metadata_props[WEIGHTS]
        key = (node.graph, linear.weight, linear.transposed, fmt)
        if key not in self._made:
            rows = linear.weight if linear.transposed else self._as_rows(linear.weight)
            decoded = self._quantized(node, rows, fmt, linear.k, node.metadata_props[LAYER])
            name = f"{node.metadata_props[LAYER]}.{fmt}"
            (columns,) = self._insert(node, "Transpose", decoded, {"perm": [1, 0]}, name, ("columns",))
            _describe(columns, ir.DataType.FLOAT, (linear.k, linear.n))
            self._made[key] = columns
        return self._made[key]

    def _as_rows(self, weight: ir.Value) -> ir.Value:
        """The initializer ``[n, k]`` of a ``[k, n]`` weight, in the graph that holds the weight."""
        if weight not in self._rows:
            assert weight.const_value is not None  # by find_linears
            assert weight.graph is not None
            tensor = TransposedTensor(weight.const_value)
            rows = ir.Value(name=self._names.take(f"{weight.name}{ROWS_SUFFIX}"), const_value=tensor)
            tensor.name = rows.name
            _describe(rows, tensor.dtype, tensor.shape)
            weight.graph.register_initializer(rows)
            self._rows[weight] = rows
        return self._rows[weight]

    def _activation(self, node: ir.Node, x: ir.Value, k: int) -> ir.Value:
        """Rules 2 and 4: what the MatMul reads for x, float32."""
        fmt = node.metadata_props[ACTIVATIONS]
        key = (node.graph, x, fmt)
        if key not in self._made:
            result = x
            if x.dtype is not ir.DataType.FLOAT and (fmt == NONE or x.dtype is ir.DataType.BFLOAT16):
                attributes = {"to": ir.DataType.FLOAT.value}
                (result,) = self._insert(node, "Cast", x, attributes, f"{x.name}", ("float32",))
                _describe(result, ir.DataType.FLOAT, x.shape)
            if fmt != NONE:
                result = self._quantized(node, result, fmt, k, x.name or "")
            self._made[key] = result
        return self._made[key]

    def _quantized(self, node: ir.Node, x: ir.Value, fmt: str, k: int, name: str) -> ir.Value:
        """``DequantizeBlock(QuantizeBlock(x))`` along the last axis of k elements, float32 of x's shape."""
        definition = get_format(fmt)
        axis: dict[str, str | int] = {"format": fmt, "axis": -1}
        outer = None if x.shape is None else list(x.shape)[:-1]
        codes, scales = self._insert(node, QUANTIZE, x, axis, f"{name}.{fmt}", ("codes", "scales"))
        _describe(codes, ir.DataType.UINT8, outer, packed_size(k, definition.element.bits))
        _describe(scales, ir.DataType.UINT8, outer, definition.scale_groups(k), definition.scales_per_block)
        (decoded,) = self._insert(node, DEQUANTIZE, [codes, scales], axis | {"size": k}, f"{name}.{fmt}", ("decoded",))
        _describe(decoded, ir.DataType.FLOAT, outer, k)
        return decoded

    def _cast_back(self, node: ir.Node, dtype: ir.DataType) -> None:
        """Rule 4: the readers of the MatMul read its result in the graph's type, under its old name."""
        y = node.outputs[0]
        cast = ir.node("Cast", [None], {"to": dtype.value}, name=f"{node.name}.cast")
        cast.metadata_props.update(provenance(node, self._pass))
        move_output(y, cast.outputs[0], self._names.take(f"{y.name}.float32"))
        cast.replace_input_with(0, y)
        cast.outputs[0].dtype = dtype
        _describe(y, ir.DataType.FLOAT, y.shape)
        assert node.graph is not None  # it was found there
        node.graph.insert_after(node, cast)

    def _insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: ir.Value | list[ir.Value],
        attributes: Mapping[str, str | int | list[int]],
        name: str,
        outputs: tuple[str, ...],
    ) -> Sequence[ir.Value]:
        """Puts a node before another one, named ``name.op_type``, its outputs ``name.output``."""
        made = ir.node(
            op_type,
            [inputs] if isinstance(inputs, ir.Value) else inputs,
            attributes,
            domain=DOMAIN if op_type in (QUANTIZE, DEQUANTIZE) else "",
            num_outputs=len(outputs),
            name=f"{name}.{op_type}",
            metadata_props=provenance(before, self._pass),
        )
        for value, suffix in zip(made.outputs, outputs, strict=True):
            value.name = self._names.take(f"{name}.{suffix}")
        assert before.graph is not None  # it was found there
        before.graph.insert_before(before, made)
        return made.outputs


def _describe(value: ir.Value, dtype: ir.DataType, outer: Iterable[int | ir.SymbolicDim] | None, *inner: int) -> None:
    """Sets the type and, where the outer dimensions are known, the shape."""
    value.type = ir.TensorType(dtype)
    value.shape = None if outer is None else ir.Shape([*outer, *inner])
