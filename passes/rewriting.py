"""What several passes need to rewrite a graph: unique names, moved outputs, removal of what became unused."""

import itertools
from collections.abc import Iterator

import onnx_ir as ir


def all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and every subgraph below it, outer ones first.

    Not the functions: they hold no initializers, so no linear layer can be inside one.
    """
    yield model.graph
    yield from model.graph.subgraphs()


class UniqueNames:
    """Value names that hide none of the model's own.

    A name is new to the main graph and to all subgraphs: a name in a branch must not hide one outside.
    """

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str | None] = set()
        for graph in all_graphs(model):
            self._taken.update(value.name for value in itertools.chain(graph.inputs, graph.initializers.values()))
            self._taken.update(output.name for node in graph for output in node.outputs)

    def take(self, name: str) -> str:
        """``name``, with a number behind it if a value has it already; taken from now on."""
        numbered = (f"{name}_{i}" for i in itertools.count(1))
        unique = next(each for each in itertools.chain([name], numbered) if each not in self._taken)
        self._taken.add(unique)
        return unique


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
