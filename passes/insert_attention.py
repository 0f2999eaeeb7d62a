"""insert-attention: block quantization, written out, on both operands of every selected attention product."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mxcompile.formats import NONE, get_format
from mxcompile.passes.analysis.attention import Attention, Operand, Scale, find_attention
from mxcompile.passes.analysis.values import Shapes, constant, element_type
from mxcompile.passes.metadata import ACTIVATIONS, ATTENTION, SKIPPED, WEIGHTS, record_pass, recorded_passes
from mxcompile.passes.rewriting import Inserter, Step, UniqueNames, all_graphs, describe, remove_unused

SEQUENCE: Final = "sequence"
TOKEN: Final = "token"
"""What blocks of values run along: the tokens, over which the product reduces, or the features of one token."""

_HEADS: Final = 1
"""The axis of heads in ``[batch, heads, tokens, head_dim]``."""

_BYTE: Final = 8
"""Bits: elements of that size leave no rest in the last byte of a row."""


@dataclasses.dataclass(frozen=True)
class InsertAttention(ir.passes.InPlacePass):
    """Makes the selected products of an attention read both operands through QuantizeBlock and DequantizeBlock.

    1. Queries and keys are quantized along head_dim, as they are before scaling: the factors on either side are
       applied to the product in their place, as one. Where keys are scaled, transposed or repeated for groups of
       queries, the pass goes to what is behind that (see `find_attention`): in a decoder the tensor of the cache.
    2. Probabilities are quantized along the tokens. Values are too with the blocking ``sequence``, as rows of tokens,
       ``[..., head_dim, tokens]``; with ``token`` along head_dim, each token by itself, which no MatMulBlock takes.
    3. How many tokens there are is known at run time only: DequantizeBlock gives what the codes hold, and a Slice cuts
       off the one element too many that formats with several elements in a byte may have.
    4. For grouped heads the queries of a group are put together to rows of one head, ``[batch, key heads, group *
       queries, ...]``, and the result is taken apart again; so each head of keys and values is quantized once. Who
       asks for the shape of the repeated heads, asks the heads themselves, if it is not for their number.
    5. Products of one graph that share keys, or values, in the same format share their nodes; an existing Transpose to
       the rows of keys is used.
    6. In float16 and bfloat16 graphs products compute in float32 and a Cast goes back, after the scaling: the product
       of queries and keys that are not scaled may be too large for float16. What goes in without QuantizeBlock, or is
       scaled afterwards, is cast to float32 before, and so is what QuantizeBlock does not take (bfloat16).

    The MatMuls keep their names and metadata, and what their readers read keeps its name. Walks the main graph and its
    subgraphs; functions hold no attention.

    Attributes:
        blocking: What blocks of values run along, `SEQUENCE` or `TOKEN`.
    """

    name: ClassVar[str] = "insert-attention"
    blocking: str = SEQUENCE

    def requires(self, model: ir.Model) -> None:
        """select-formats has seen every attention product, and the blocking is a known one."""
        if self.blocking not in (SEQUENCE, TOKEN):
            raise ir.passes.PreconditionError(f"blocking is {self.blocking!r}; allowed are {SEQUENCE} and {TOKEN}")
        for attention in find_attention(model):
            for node in (attention.qk, attention.pv):
                if not node.metadata_props.keys() & {WEIGHTS, SKIPPED}:
                    raise ir.passes.PreconditionError(f"MatMul {node.name}: run select-formats before {self.name}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrites every selected product."""
        positions = {node: index for graph in all_graphs(model) for index, node in enumerate(graph)}
        jobs = [
            (positions[node], node, attention)
            for attention in find_attention(model)
            for node in (attention.qk, attention.pv)
            if node.metadata_props.keys() >= {ATTENTION, WEIGHTS} and self.name not in recorded_passes(node)
        ]
        quantizer = _Quantizer(model, self.name, positions)
        # In the order of the graph, so that what products share stands in front of all of them.
        for _, node, attention in sorted(jobs, key=lambda job: job[0]):
            if node is attention.qk:
                quantizer.rewrite_qk(attention)
            else:
                quantizer.rewrite_pv(attention, self.blocking)
        return ir.passes.PassResult(model, bool(jobs))


class _Quantizer:
    """What one run of the pass has inserted so far, for sharing (rule 5)."""

    def __init__(self, model: ir.Model, pass_name: str, positions: Mapping[ir.Node, int]) -> None:
        self._inserter = Inserter(UniqueNames(model), pass_name)
        self._pass = pass_name
        self._positions = positions
        self._shapes = Shapes()
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def rewrite_qk(self, attention: Attention) -> None:
        """Queries times keys."""
        node, q, k = attention.qk, attention.q, attention.k
        dtype, fmt = element_type(k.source) or ir.DataType.FLOAT, node.metadata_props[WEIGHTS]
        size = self._size(k) or self._size(Operand(q, k.rank))
        scale = self._scale(node, attention.scales, dtype)
        rows = self._grouped(node, q, k, size)
        left = self._left(node, rows, dtype, size, scaled=scale is not None)
        key = ("keys", node.graph, k.source, k.perm, fmt)
        if key not in self._made:
            name = k.source.name or ""
            keys = self._widened(node, self._key_rows(node, k), dtype)
            decoded = self._decoded(node, keys, fmt, size, name)
            self._made[key] = self._swapped(node, decoded, k.rank, f"{name}.{fmt}", "columns")
        self._replace(node, [left, self._made[key]], k)
        self._finish(node, q, k, scale, dtype)

    def rewrite_pv(self, attention: Attention, blocking: str) -> None:
        """Probabilities times values."""
        node, p, v = attention.pv, attention.p, attention.v
        dtype, fmt = element_type(v.source) or ir.DataType.FLOAT, node.metadata_props[WEIGHTS]
        rows = self._grouped(node, p, v, None)
        left = self._left(node, rows, dtype, None, scaled=False)
        key = ("values", node.graph, v.source, fmt, blocking)
        if key not in self._made:
            name = v.source.name or ""
            values = self._widened(node, v.source, dtype)
            if blocking == SEQUENCE:
                values = self._swapped(node, values, v.rank, name, "rows")
                decoded = self._decoded(node, values, fmt, None, name, of=rows)
                self._made[key] = self._swapped(node, decoded, v.rank, f"{name}.{fmt}", "tokens")
            else:
                self._made[key] = self._decoded(node, values, fmt, self._size(v), name)
        self._replace(node, [left, self._made[key]], v)
        self._finish(node, p, v, None, dtype)

    def _left(self, node: ir.Node, x: ir.Value, dtype: ir.DataType, size: int | None, *, scaled: bool) -> ir.Value:
        """Rules 1, 2 and 6: the queries or probabilities, float32."""
        fmt = node.metadata_props[ACTIVATIONS]
        if x.dtype is None:
            x.dtype = dtype  # MatMul's operands have one type
        x = self._widened(node, x, dtype, always=scaled or fmt == NONE)
        return x if fmt == NONE else self._decoded(node, x, fmt, size, x.name or "")

    def _decoded(
        self, node: ir.Node, x: ir.Value, fmt: str, size: int | None, name: str, of: ir.Value | None = None
    ) -> ir.Value:
        """Rule 3: what the codes of ``x`` decode to; of an unknown size as long as the rows of ``of``, or of ``x``."""
        decoded = self._inserter.quantize(node, x, fmt, size, name)
        if size is not None or get_format(fmt).element.bits == _BYTE:
            return decoded
        length = self._shape(node, x if of is None else of, -1)
        start, axis = self._vector(node, [0]), self._vector(node, [-1])
        (cut,) = self._inserter.insert(node, "Slice", [decoded, start, length, axis], {}, f"{name}.{fmt}", ("cut",))
        describe(cut, ir.DataType.FLOAT, x.shape)
        return cut

    def _key_rows(self, node: ir.Node, k: Operand) -> ir.Value:
        """Rule 5: the keys as rows; made anew if no Transpose in front of the product makes them."""
        if k.perm is None:
            return k.source
        for reader, _ in k.source.uses():
            same = (reader.op_type, reader.domain, reader.graph) == ("Transpose", "", node.graph)
            if same and tuple(reader.attributes.get_ints("perm", ())) == k.perm and self._stands_before(reader, node):
                return reader.outputs[0]
        return self._transposed(node, k.source, k.perm, k.source.name or "", "rows")

    def _stands_before(self, reader: ir.Node, node: ir.Node) -> bool:
        return reader in self._positions and self._positions[reader] < self._positions[node]

    def _grouped(self, node: ir.Node, x: ir.Value, operand: Operand, size: int | None) -> ir.Value:
        """Rule 4: the rows of queries or probabilities that belong to one head of keys or values."""
        if operand.repeated is None:
            return x
        heads = (self._shapes.dims(operand.source) or [None] * operand.rank)[_HEADS]
        number = heads or self._shape(node, operand.source, _HEADS, _HEADS + 1)
        shape = self._vector(node, [0, number, -1, size or self._shape(node, x, -1)])
        (rows,) = self._inserter.insert(node, "Reshape", [x, shape], {}, x.name or "", ("grouped",))
        rows.type = x.type
        return rows

    def _scale(self, node: ir.Node, scales: Sequence[Scale], dtype: ir.DataType) -> ir.Value | None:
        """Rule 1: the factor of the product, float32; None if it is 1."""
        factor = _constant_factor(scales)
        if factor == 1.0:
            return None
        name = f"{node.outputs[0].name}.scale"
        if factor is not None:
            return self._constant(node, np.float32(factor), name)
        result: ir.Value | None = None
        for scale in sorted(scales, key=lambda each: each.divides):
            value = self._widened(node, scale.value, dtype, always=True)
            if result is None and not scale.divides:
                result = value
                continue
            one = self._constant(node, np.float32(1), name) if result is None else result
            (result,) = self._inserter.insert(
                node, "Div" if scale.divides else "Mul", [one, value], {}, name, ("part",)
            )
        return result

    def _finish(self, node: ir.Node, x: ir.Value, operand: Operand, scale: ir.Value | None, dtype: ir.DataType) -> None:
        """Rules 1, 4 and 6: what follows the product whose left operand was ``x``, and the record."""
        cast = [Step("Cast", (), {"to": dtype.value}, "float32", dtype)] if dtype is not ir.DataType.FLOAT else []
        steps = [] if scale is not None else list(cast)
        if operand.repeated is not None:
            shape = self._vector(node, [0, self._shape(node, x, _HEADS, -1), -1])
            steps.append(Step("Reshape", (shape,), {}, "grouped", dtype if scale is None else ir.DataType.FLOAT))
        if scale is not None:
            steps += [Step("Mul", (scale,), {}, "unscaled", ir.DataType.FLOAT), *cast]
        self._inserter.append(node, steps)
        record_pass(node, self._pass)

    def _replace(self, node: ir.Node, inputs: Sequence[ir.Value], operand: Operand) -> None:
        """Gives the product its operands; what made the old ones goes, if nobody else reads it."""
        old = list(node.inputs)
        for index, new in enumerate(inputs):
            node.replace_input_with(index, new)
        for reader, _ in list(operand.repeated.uses()) if operand.repeated is not None else []:
            if _asks_no_heads(reader):
                reader.replace_input_with(0, operand.source)
        for value in old:
            remove_unused(value)

    def _size(self, operand: Operand) -> int | None:
        """The last dimension of the operand's rows, if it is known."""
        shape = self._shapes.dims(operand.source)
        return None if shape is None else shape[operand.perm[-1] if operand.perm else -1]

    def _widened(self, node: ir.Node, x: ir.Value, dtype: ir.DataType, *, always: bool = False) -> ir.Value:
        """Rule 6: float32, if QuantizeBlock does not take the type, or ``always``."""
        if dtype is ir.DataType.FLOAT or (dtype is ir.DataType.FLOAT16 and not always):
            return x
        key = ("float32", node.graph, x)
        if key not in self._made:
            to = {"to": ir.DataType.FLOAT.value}
            (self._made[key],) = self._inserter.insert(node, "Cast", x, to, x.name or "", ("float32",))
            describe(self._made[key], ir.DataType.FLOAT, x.shape)
        return self._made[key]

    def _swapped(self, node: ir.Node, x: ir.Value, rank: int, name: str, suffix: str) -> ir.Value:
        """The value with its last two axes exchanged."""
        return self._transposed(node, x, (*range(rank - 2), rank - 1, rank - 2), name, suffix)

    def _transposed(self, node: ir.Node, x: ir.Value, perm: Sequence[int], name: str, suffix: str) -> ir.Value:
        (result,) = self._inserter.insert(node, "Transpose", x, {"perm": list(perm)}, name, (suffix,))
        result.type = x.type
        result.shape = None if x.shape is None else ir.Shape([x.shape[axis] for axis in perm])
        return result

    def _shape(self, node: ir.Node, x: ir.Value, start: int, end: int | None = None) -> ir.Value:
        """The dimensions of ``x`` from ``start`` up to ``end``, a vector of int64."""
        key = ("shape", node.graph, x, start, end)
        if key not in self._made:
            attributes = {"start": start} | ({} if end is None else {"end": end})
            (self._made[key],) = self._inserter.insert(node, "Shape", x, attributes, x.name or "", ("shape",))
        return self._made[key]

    def _vector(self, node: ir.Node, parts: Sequence[int | ir.Value]) -> ir.Value:
        """A vector of int64: the numbers, and the elements of the values, in their order."""
        name, values = f"{node.outputs[0].name}.vector", list[ir.Value]()
        for known, run in itertools.groupby(parts, key=lambda part: isinstance(part, int)):
            group = list(run)
            numbers = [part for part in group if isinstance(part, int)]
            values += [self._constant(node, np.array(numbers, np.int64), name)] if known else []
            values += [part for part in group if isinstance(part, ir.Value)]
        if len(values) == 1:
            return values[0]
        return self._inserter.insert(node, "Concat", values, {"axis": 0}, name, ("joined",))[0]

    def _constant(self, node: ir.Node, array: npt.ArrayLike, name: str) -> ir.Value:
        (result,) = self._inserter.insert(node, "Constant", (), {"value": ir.tensor(array)}, name, ("constant",))
        return result


def _constant_factor(scales: Sequence[Scale]) -> float | None:
    """The product of the scales, 1 if there are none, rounded where it is used; None if one is only known when run."""
    factor = 1.0
    for scale in scales:
        array = constant(scale.value)
        if array is None or (scale.divides and not array.any()):
            return None
        factor = factor / float(array.item()) if scale.divides else factor * float(array.item())
    return factor


def _asks_no_heads(shape: ir.Node) -> bool:
    """Whether a node is a Shape of ``[batch, heads, tokens, head_dim]`` of which only the last two are read."""
    if (shape.op_type, shape.domain) != ("Shape", "") or shape.attributes or shape.outputs[0].is_graph_output():
        return False
    for reader, index in shape.outputs[0].uses():
        if (reader.op_type, reader.domain, index) != ("Gather", "", 0) or reader.attributes.get_int("axis", 0) != 0:
            return False
        positions = constant(reader.inputs[1])
        if positions is None or not all(position in (2, 3, -1, -2) for position in positions.reshape(-1)):
            return False
    return True
