"""The nodes of a compiled model as a page shows them: where they lie, in which formats they compute, and why not."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Final

import onnx_ir as ir

from mxcompile.formats import NONE
from mxcompile.page.content import Node, ProductKind
from mxcompile.page.places import place, stack_labels
from mxcompile.passes.analysis.linears import resolve_weight
from mxcompile.passes.metadata import LAYER
from mxcompile.report import LayerReport, describe_product, weight_bits

_ATTENTION: Final[dict[str | None, ProductKind]] = {"qk": "qk", "pv": "pv"}


@dataclasses.dataclass(frozen=True)
class Figures:
    """What was measured or estimated of the nodes of one model.

    Attributes:
        sqnr_db: See `Node.sqnr_db`, by layer.
        kl: See `Node.kl`, by layer.
        energy_pj: See `Node.energy_pj`, by the path of the node (see `walk`).
        macs: See `Node.macs`, likewise.
    """

    sqnr_db: Mapping[str, float] = dataclasses.field(default_factory=dict)
    kl: Mapping[str, float] = dataclasses.field(default_factory=dict)
    energy_pj: Mapping[str, float] = dataclasses.field(default_factory=dict)
    macs: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Found:
    """A node, its path, the branches that it lies in, and the product that it is."""

    node: ir.Node
    path: str
    branch: str
    product: LayerReport | None

    @property
    def layer(self) -> str:
        """See `Node.layer`."""
        return self.node.metadata_props.get(LAYER) or self.node.name or self.path


def describe_nodes(model: ir.Model, figures: Figures | None = None) -> tuple[Node, ...]:
    """Every node of the main graph in its order, and the products in the branches of an ``If`` behind that.

    1. A node lies where its layer lies, and one without a layer where its own name says (see `place`).
    2. A product has the role of its layer; other nodes that a pass made for the layer have their operator behind it.
    3. Where there are several lists of blocks, or branches, roles begin with what tells them apart.

    Args:
        model: A compiled model.
        figures: What is known of its nodes; nothing if None.
    """
    figures = figures or Figures()
    found = [
        _Found(node, path, branch, describe_product("", node))
        for path, branch, node in walk(model)
        if not branch or describe_product("", node) is not None
    ]
    labels = stack_labels(place(each.layer).stack for each in found if each.product is not None)
    return tuple(_node(each, labels, figures) for each in found)


def walk(model: ir.Model) -> Iterator[tuple[str, str, ir.Node]]:
    """Path, branch and node of every node, functions left out; paths are those of `mxcompile.cost`, and unique.

    The branch is ``then`` or ``else``, joined by slashes where one lies in another; empty in the main graph.
    """
    taken: set[str] = set()
    yield from _walk(model.graph, "", "", taken)


def _walk(graph: ir.Graph, prefix: str, branch: str, taken: set[str]) -> Iterator[tuple[str, str, ir.Node]]:
    for node in graph:
        name = prefix + (node.name or f"{node.op_type}:{node.outputs[0].name}")
        path, index = name, 1
        while path in taken:
            path, index = f"{name}_{index}", index + 1
        taken.add(path)
        yield path, branch, node
        for key, attribute in node.attributes.items():
            if attribute.type is ir.AttributeType.GRAPH:
                inner = key.removesuffix("_branch")
                yield from _walk(attribute.as_graph(), f"{path}/{inner}/", f"{branch}/{inner}".strip("/"), taken)


def _node(found: _Found, labels: Mapping[str, str], figures: Figures) -> Node:
    """Rules 1 to 3, and the figures."""
    node, product, layer = found.node, found.product, found.layer
    where = place(layer)
    role = where.role
    if product is None and LAYER in node.metadata_props:
        role = f"{role}/{node.op_type}"
    role = "/".join(part for part in (found.branch, labels.get(where.stack, ""), role) if part)
    plain = Node(
        found.path,
        node.op_type,
        layer,
        where.block,
        role,
        energy_pj=figures.energy_pj.get(found.path),
        macs=figures.macs.get(found.path),
    )
    if product is None:
        return plain
    k, n, bits = _sizes(node, product)
    kind = _ATTENTION.get(product.attention) or ("linear" if k is not None else None)
    return dataclasses.replace(
        plain,
        product=kind,
        weights=_format(product.weights),
        activations=_format(product.activations),
        skipped=product.skipped,
        k=k,
        n=n,
        bits=bits,
        sqnr_db=figures.sqnr_db.get(layer),
        kl=figures.kl.get(layer),
    )


def _format(name: str | None) -> str | None:
    """A format; None for float."""
    return None if name == NONE else name


def _sizes(node: ir.Node, product: LayerReport) -> tuple[int | None, int | None, float | None]:
    """k, n and the bits of a weight, as far as the graph tells: of a quantized layer, or of a float matrix."""
    if product.attention is not None:
        return node.attributes.get_int("k", 0) or None, None, None
    if product.skipped is None:
        return product.k, product.n, weight_bits(node)
    right = node.inputs[1] if len(node.inputs) > 1 else None
    found = resolve_weight(right)
    tensor = found[0].const_value if found is not None else None
    if found is None or tensor is None or len(tensor.shape) != 2:
        return None, None, None
    k, n = tensor.shape.numpy()
    # A Gemm says by an attribute what others say by a Transpose.
    if found[1] != bool(node.attributes.get_int("transB", 0)):
        k, n = n, k
    return k, n, 8 * tensor.nbytes / tensor.size
