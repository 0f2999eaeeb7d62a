"""insert-quantize: block quantization, written out, on both operands of every selected linear layer."""

import dataclasses
from typing import ClassVar

import onnx_ir as ir

from mxcompile.formats import NONE
from mxcompile.passes.analysis.linears import Linear, find_linears
from mxcompile.passes.metadata import ACTIVATIONS, LAYER, SKIPPED, WEIGHTS, record_pass
from mxcompile.passes.rewriting import Inserter, Step, UniqueNames, describe, remove_unused

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
        quantizer = _Quantizer(UniqueNames(model), self.name)
        for linear in linears:
            quantizer.rewrite(linear)
        return ir.passes.PassResult(model, bool(linears))


class _Quantizer:
    """What one run of the pass has inserted so far, for sharing (rule 3)."""

    def __init__(self, names: UniqueNames, pass_name: str) -> None:
        self._names = names
        self._pass = pass_name
        self._inserter = Inserter(names, pass_name)
        self._made: dict[tuple[object, ...], ir.Value] = {}
        self._rows: dict[ir.Value, ir.Value] = {}

    def rewrite(self, linear: Linear) -> None:
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
            cast = Step("Cast", (), {"to": dtype.value}, "float32", dtype)
            self._inserter.append(node, [cast])

    def _weight(self, linear: Linear) -> ir.Value:
        """Rule 1: the decoded weight, float32 ``[k, n]``."""
        node, fmt = linear.node, linear.node.metadata_props[WEIGHTS]
        key = (node.graph, linear.weight, linear.transposed, fmt)
        if key not in self._made:
            rows = linear.weight if linear.transposed else self._as_rows(linear.weight)
            decoded = self._inserter.quantize(node, rows, fmt, linear.k, node.metadata_props[LAYER])
            name = f"{node.metadata_props[LAYER]}.{fmt}"
            (columns,) = self._inserter.insert(node, "Transpose", decoded, {"perm": [1, 0]}, name, ("columns",))
            describe(columns, ir.DataType.FLOAT, (linear.k, linear.n))
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
            describe(rows, tensor.dtype, tensor.shape)
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
                (result,) = self._inserter.insert(node, "Cast", x, attributes, f"{x.name}", ("float32",))
                describe(result, ir.DataType.FLOAT, x.shape)
            if fmt != NONE:
                result = self._inserter.quantize(node, result, fmt, k, x.name or "")
            self._made[key] = result
        return self._made[key]
