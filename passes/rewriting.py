"""What several passes need to rewrite a graph: unique names, new nodes, moved outputs, removal of unused ones."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import onnx_ir as ir

from mxcompile.formats import get_format
from mxcompile.formats.packing import packed_size
from mxcompile.ops import DEQUANTIZE, DOMAIN, QUANTIZE
from mxcompile.passes.metadata import provenance

Attributes = Mapping[str, str | int | list[int] | ir.TensorProtocol]


def all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and every subgraph below it, outer ones first.

    Not the functions: they hold no initializers, so no linear layer can be inside one.
    """
    yield model.graph
    yield from model.graph.subgraphs()


class UniqueNames:
    """Names of values that hide none of the model's own, and of nodes.

    A name is new to the main graph and to all subgraphs: a name in a branch must not hide one outside.
    """

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str | None] = set()
        self._nodes = {node.name for node in model.graph.all_nodes()}
        for graph in all_graphs(model):
            self._taken.update(value.name for value in itertools.chain(graph.inputs, graph.initializers.values()))
            self._taken.update(output.name for node in graph for output in node.outputs)

    def take(self, name: str) -> str:
        """``name``, with a number behind it if a value has it already; taken from now on."""
        return _take(name, self._taken)

    def take_for_node(self, name: str) -> str:
        """The same for names of nodes, which may be those of values."""
        return _take(name, self._nodes)


def _take(name: str, taken: set[str | None]) -> str:
    numbered = (f"{name}_{i}" for i in itertools.count(1))
    unique = next(each for each in itertools.chain([name], numbered) if each not in taken)
    taken.add(unique)
    return unique


@dataclasses.dataclass(frozen=True)
class Step:
    """A node to be put behind another one.

    Attributes:
        op_type: Of ONNX's own domain.
        inputs: Those behind the first, which is the result of the node before.
        attributes: Its attributes.
        before: Behind the old name, the name of what it reads.
        dtype: Type of its result.
    """

    op_type: str
    inputs: Sequence[ir.Value]
    attributes: Attributes
    before: str
    dtype: ir.DataType


class Inserter:
    """Puts a pass's nodes into graphs: with unique names, and with the metadata of the node that they are made for."""

    def __init__(self, names: UniqueNames, pass_name: str) -> None:
        self._names = names
        self._pass = pass_name

    def insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: ir.Value | Sequence[ir.Value],
        attributes: Attributes,
        name: str,
        outputs: Sequence[str],
    ) -> Sequence[ir.Value]:
        """Puts a node before another one, named ``name.op_type``, its outputs ``name.output``."""
        made = ir.node(
            op_type,
            [inputs] if isinstance(inputs, ir.Value) else inputs,
            attributes,
            domain=DOMAIN if op_type in (QUANTIZE, DEQUANTIZE) else "",
            num_outputs=len(outputs),
            name=self._names.take_for_node(f"{name}.{op_type}"),
            metadata_props=provenance(before, self._pass),
        )
        for value, suffix in zip(made.outputs, outputs, strict=True):
            value.name = self._names.take(f"{name}.{suffix}")
        assert before.graph is not None  # it was found there
        before.graph.insert_before(before, made)
        return made.outputs

    def quantize(self, before: ir.Node, x: ir.Value, fmt: str, k: int | None, name: str) -> ir.Value:
        """``DequantizeBlock(QuantizeBlock(x))`` along the last axis, float32 of x's shape.

        Of an unknown length ``k`` the size is left out: the result is as long as the codes say, which may be one
        element more where codes share a byte.
        """
        definition = get_format(fmt)
        axis: dict[str, str | int] = {"format": fmt, "axis": -1}
        outer = None if x.shape is None else list(x.shape)[:-1]
        codes, scales = self.insert(before, QUANTIZE, x, axis, f"{name}.{fmt}", ("codes", "scales"))
        packed = None if k is None else packed_size(k, definition.element.bits)
        describe(codes, ir.DataType.UINT8, outer, packed)
        groups = None if k is None else definition.scale_groups(k)
        describe(scales, ir.DataType.UINT8, outer, groups, definition.scales_per_block)
        size = axis | {"size": k or 0}
        (decoded,) = self.insert(before, DEQUANTIZE, [codes, scales], size, f"{name}.{fmt}", ("decoded",))
        describe(decoded, ir.DataType.FLOAT, outer, k)
        return decoded

    def append(self, node: ir.Node, steps: Sequence[Step]) -> None:
        """Puts nodes behind one that gives float32 now; its readers read the last one's result, under the old name."""
        y, last, made = node.outputs[0], node, list[ir.Value]()
        name, shape = y.name, y.shape
        for step in steps:
            assert node.graph is not None  # it was found there
            result = last.outputs[0]
            new_name = self._names.take_for_node(f"{node.name}.{step.op_type.lower()}")
            new = ir.node(step.op_type, [None, *step.inputs], step.attributes, name=new_name)
            new.metadata_props.update(provenance(node, self._pass))
            move_output(result, new.outputs[0], self._names.take(f"{name}.{step.before}"))
            new.replace_input_with(0, result)
            node.graph.insert_after(last, new)
            last = new
            made.append(new.outputs[0])
        for step, value in zip(reversed(steps), reversed(made), strict=True):
            value.type, value.shape = ir.TensorType(step.dtype), shape
            shape = None if step.op_type == "Reshape" else shape
        y.type, y.shape = ir.TensorType(ir.DataType.FLOAT), shape


def describe(
    value: ir.Value, dtype: ir.DataType, outer: Iterable[int | ir.SymbolicDim] | None, *inner: int | None
) -> None:
    """Sets the type and, where the outer dimensions are known, the shape; None among the inner ones is unknown."""
    value.type = ir.TensorType(dtype)
    value.shape = None if outer is None else ir.Shape([*outer, *inner])


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is an initializer that no caller of the model can replace."""
    return value is not None and value.is_initializer() and not value.is_graph_input()


def producer(value: ir.Value | None, op_type: str, domain: str = "") -> ir.Node | None:
    """The node that makes the value, if it is of that type."""
    node = value.producer() if value is not None else None
    return node if node is not None and (node.op_type, node.domain) == (op_type, domain) else None


def swaps_axes(node: ir.Node) -> bool:
    """Whether a Transpose of a matrix swaps its two axes (a missing ``perm`` reverses them)."""
    return tuple(node.attributes.get_ints("perm", (1, 0))) == (1, 0)


def move_output(old: ir.Value, new: ir.Value, old_name: str) -> None:
    """Puts ``new`` in the place of ``old``: its readers, its name, its type and shape; ``old`` gets ``old_name``.

    The node that makes ``new`` may read ``old``, but only from after this call.
    """
    name = old.name
    new.type, new.shape = old.type, old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name, new.name = old_name, name


def remove_unused(value: ir.Value | None) -> None:
    """Removes an initializer or the node that makes the value, if nobody needs it, and then what only that one read."""
    if value is None or value.uses() or value.is_graph_output():
        return
    node = value.producer()
    if node is None:
        if is_constant(value) and value.graph is not None and value.name is not None:
            del value.graph.initializers[value.name]
        return
    if node.graph is None or any(output.uses() or output.is_graph_output() for output in node.outputs):
        return
    inputs = dict.fromkeys(node.inputs)
    node.graph.remove(node, safe=True)
    for each in inputs:
        remove_unused(each)
