"""select-formats: decides, for every matrix product, in which formats it computes, or why it is left alone."""

import collections
import dataclasses
import fnmatch
import logging
from collections.abc import Sequence
from typing import ClassVar, Final

import onnx_ir as ir

from mxcompile.config import CompileConfig
from mxcompile.errors import ConfigError, UnsupportedModelError
from mxcompile.formats import NONE
from mxcompile.passes.analysis.attention import find_attention
from mxcompile.passes.analysis.linears import Linear, classify, gemm_obstacle, obstacle
from mxcompile.passes.analysis.roles import find_heads, find_routers
from mxcompile.passes.metadata import ACTIVATIONS, ATTENTION, LAYER, SKIPPED, WEIGHTS, set_metadata

logger = logging.getLogger(__name__)

HEAD: Final = "output head: kept by default (--include or --set selects it)"
ROUTER: Final = "router of a mixture of experts: kept by default (--include or --set selects it)"
NOT_INCLUDED: Final = "no --include pattern matches it"
NO_ATTENTION: Final = "attention product: the settings give it no format (--attention, --attention-format)"

_HEAD_NAMES: Final = frozenset({"lm_head"})
_ROUTER_NAMES: Final = frozenset({"gate", "router"})
_NAMES_SHOWN: Final = 5


@dataclasses.dataclass(frozen=True)
class Product:
    """A matrix product that the settings can select.

    Attributes:
        node: The MatMul.
        layer: Its path in the model: of a linear layer, or of an attention with ``/qk`` or ``/pv`` behind it.
        attention: ``qk`` for queries times keys, ``pv`` for probabilities times values; None for a linear layer.
    """

    node: ir.Node
    layer: str
    attention: str | None = None


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What a product gets; without formats it is left alone for that reason."""

    weights: str = NONE
    activations: str = NONE
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class SelectFormats(ir.passes.InPlacePass):
    """Writes the layer's name and its formats, or the reason why there are none, on every MatMul and Gemm.

    1. A linear layer gets the formats of the settings, except output heads and routers (by where their result goes,
       or by name), which are left alone.
    2. Of an attention, the product of queries and keys gets the settings' formats of ``attention`` and ``keys``, that
       of probabilities and values those of ``attention`` and ``values``: the second operand's in the place of weights.
    3. ``exclude`` leaves a product alone; ``include`` selects the products that it matches, also those that rule 1
       excepts, and no others. A product that both match is left alone.
    4. ``overrides`` come last: the last one that matches a product decides alone.
    5. Weights in the format ``none`` mean: left alone.
    6. Any other product is never selected: rotary angles, unusual Gemms and attentions.

    Patterns are case-sensitive globs; a product matches by its layer, with or without the leading slash, or by its
    node's name. Walks the main graph and its subgraphs; functions hold no layers. Only metadata changes.

    Attributes:
        config: The settings.
        partial: The graph is one of several of a model, so that a pattern may match in another one, and all of this
            one may be left alone. Whoever runs the passes then checks: `check_patterns` over the products of all.
    """

    name: ClassVar[str] = "select-formats"
    config: CompileConfig
    partial: bool = False

    def requires(self, model: ir.Model) -> None:
        """Every Gemm that is a linear layer is a MatMul by now."""
        for node in model.graph.all_nodes():
            if (node.op_type, node.domain) == ("Gemm", "") and not (obstacle(node) or gemm_obstacle(node)):
                raise ir.passes.PreconditionError(f"Gemm {node.name}: run normalize-linears before {self.name}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Annotates every product.

        Raises:
            ConfigError: A pattern that matches no product.
            UnsupportedModelError: Nothing is selected.
        """
        linears, others = classify(model)
        products = _attention_products(model)
        if not self.partial:
            check_patterns(self.config, [*map(_linear_product, linears), *products.values()])
        kept = dict.fromkeys(find_routers(model), ROUTER) | dict.fromkeys(find_heads(model), HEAD)
        choices: list[tuple[Product, _Choice]] = []
        for linear in linears:
            reason = kept.get(linear.node) or _kept_by_name(linear)
            choices.append((_linear_product(linear), self._choose(_linear_product(linear), reason)))
        for other in others:
            product = products.get(other.node)
            choices.append(
                (Product(other.node, ""), _Choice(reason=other.reason))
                if product is None
                else (product, self._choose(product, None))
            )
        modified, reasons = False, collections.Counter[str]()
        for product, choice in choices:
            modified |= _annotate(product, choice)
            reasons[choice.reason] += 1
        if not reasons.pop("", 0) and not self.partial:
            raise UnsupportedModelError(_nothing_selected(model, reasons))
        return ir.passes.PassResult(model, modified)

    def _choose(self, product: Product, kept: str | None) -> _Choice:
        """Rules 1 to 5, the last word first."""
        config = self.config
        for pattern, weights, activations in reversed(config.overrides):
            if matches(product, pattern):
                return _choice(weights, activations, f"--set '{pattern}' gives it no weight format")
        for pattern in config.exclude:
            if matches(product, pattern):
                return _Choice(reason=f"--exclude '{pattern}' matches it")
        if config.include:
            kept = None if any(matches(product, pattern) for pattern in config.include) else NOT_INCLUDED
        if kept:
            return _Choice(reason=kept)
        if product.attention is not None:
            second = config.keys if product.attention == "qk" else config.values
            return _choice(second, config.attention, NO_ATTENTION)
        return _choice(config.weights, config.activations, "the settings give no weight format")


def selectable(model: ir.Model) -> list[Product]:
    """The products that the settings can select: the linear layers, then the attention products."""
    return [*map(_linear_product, classify(model)[0]), *_attention_products(model).values()]


def _linear_product(linear: Linear) -> Product:
    return Product(linear.node, linear.layer)


def _attention_products(model: ir.Model) -> dict[ir.Node, Product]:
    """Both products of every attention, by their nodes."""
    products = (
        Product(node, f"{attention.layer}/{role}", role)
        for attention in find_attention(model)
        for node, role in ((attention.qk, "qk"), (attention.pv, "pv"))
    )
    return {product.node: product for product in products}


def matches(product: Product, pattern: str) -> bool:
    """Whether a pattern of the settings means this product."""
    names = {product.layer, product.layer.removeprefix("/"), product.node.name or ""}
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def check_patterns(config: CompileConfig, products: Sequence[Product]) -> None:
    """Checks that every pattern of the settings means at least one of the products.

    Raises:
        ConfigError: One does not; the message lists some of the layers' names.
    """
    patterns = [("--include", each) for each in config.include] + [("--exclude", each) for each in config.exclude]
    patterns += [("--set", pattern) for pattern, _, _ in config.overrides]
    for option, pattern in patterns:
        if not any(matches(product, pattern) for product in products):
            names = list(dict.fromkeys(product.layer for product in products))
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            known = f"{', '.join(names[:_NAMES_SHOWN])}{more}" if names else "none at all"
            raise ConfigError(f"{option} '{pattern}' matches no layer; the model has {known}")


def _choice(weights: str, activations: str, reason: str) -> _Choice:
    """Rule 5."""
    return _Choice(reason=reason) if weights == NONE else _Choice(weights, activations)


def _kept_by_name(linear: Linear) -> str | None:
    """The second half of rule 1: a part of the path that is exactly such a name."""
    parts = set(linear.layer.split("/"))
    return HEAD if parts & _HEAD_NAMES else ROUTER if parts & _ROUTER_NAMES else None


def _annotate(product: Product, choice: _Choice) -> bool:
    """Writes the choice into the node's metadata; whether that changed it."""
    selected = not choice.reason
    if not selected:
        logger.info("%s is left alone: %s", product.layer or product.node.name, choice.reason)
    return set_metadata(
        product.node.metadata_props,
        {
            LAYER: product.layer or None,
            ATTENTION: product.attention,
            WEIGHTS: choice.weights if selected else None,
            ACTIVATIONS: choice.activations if selected else None,
            SKIPPED: None if selected else choice.reason,
        },
    )


def _nothing_selected(model: ir.Model, reasons: collections.Counter[str]) -> str:
    counted = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    return (
        f"graph {model.graph.name}: nothing to quantize among its {reasons.total()} matrix products"
        f"{': ' + counted if counted else ''}; a linear layer is a MatMul or Gemm with a constant float matrix"
    )
