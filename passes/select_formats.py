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
from mxcompile.passes.analysis.linears import Linear, classify, gemm_obstacle, obstacle
from mxcompile.passes.analysis.roles import find_heads, find_routers
from mxcompile.passes.metadata import ACTIVATIONS, LAYER, SKIPPED, WEIGHTS, set_metadata

logger = logging.getLogger(__name__)

HEAD: Final = "output head: kept by default (--include or --set selects it)"
ROUTER: Final = "router of a mixture of experts: kept by default (--include or --set selects it)"
NOT_INCLUDED: Final = "no --include pattern matches it"

_HEAD_NAMES: Final = frozenset({"lm_head"})
_ROUTER_NAMES: Final = frozenset({"gate", "router"})
_NAMES_SHOWN: Final = 5


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What a layer gets; without formats it is left alone for that reason."""

    weights: str = NONE
    activations: str = NONE
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class SelectFormats(ir.passes.InPlacePass):
    """Writes the layer's name and its formats, or the reason why there are none, on every MatMul and Gemm.

    1. A linear layer gets the formats of the settings, except output heads and routers (by where their result goes,
       or by name), which are left alone.
    2. ``exclude`` leaves a layer alone; ``include`` selects the layers that it matches, also those that rule 1
       excepts, and no others. A layer that both match is left alone.
    3. ``overrides`` come last: the last one that matches a layer decides alone.
    4. Weights in the format ``none`` mean: left alone.
    5. A product that is no linear layer is never selected: attention, rotary angles, unusual Gemms.

    Patterns are case-sensitive globs; a layer matches by its name, with or without the leading slash, or by its node's
    name. Walks the main graph and its subgraphs; functions hold no linear layers. Only metadata changes.

    Attributes:
        config: The settings.
        partial: The graph is one of several of a model, so that a pattern may match in another one, and all of this
            one may be left alone. Whoever runs the passes then checks: `check_patterns` over the layers of all.
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
            ConfigError: A pattern that matches no layer.
            UnsupportedModelError: Nothing is selected.
        """
        linears, others = classify(model)
        if not self.partial:
            check_patterns(self.config, linears)
        kept = dict.fromkeys(find_routers(model), ROUTER) | dict.fromkeys(find_heads(model), HEAD)
        modified, reasons = False, collections.Counter[str]()
        for linear in linears:
            choice = self._choose(linear, kept.get(linear.node) or _kept_by_name(linear))
            modified |= _annotate(linear.node, linear.layer, choice)
            reasons[choice.reason] += 1
        for other in others:
            modified |= _annotate(other.node, None, _Choice(reason=other.reason))
            reasons[other.reason] += 1
        if not reasons.pop("", 0) and not self.partial:
            raise UnsupportedModelError(_nothing_selected(model, reasons))
        return ir.passes.PassResult(model, modified)

    def _choose(self, linear: Linear, kept: str | None) -> _Choice:
        """Rules 1 to 4, the last word first."""
        config = self.config
        for pattern, weights, activations in reversed(config.overrides):
            if matches(linear, pattern):
                return _choice(weights, activations, f"--set '{pattern}' gives it no weight format")
        for pattern in config.exclude:
            if matches(linear, pattern):
                return _Choice(reason=f"--exclude '{pattern}' matches it")
        if config.include:
            kept = None if any(matches(linear, pattern) for pattern in config.include) else NOT_INCLUDED
        if kept:
            return _Choice(reason=kept)
        return _choice(config.weights, config.activations, "the settings give no weight format")


def matches(linear: Linear, pattern: str) -> bool:
    """Whether a pattern of the settings means this layer."""
    names = {linear.layer, linear.layer.removeprefix("/"), linear.node.name or ""}
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)


def check_patterns(config: CompileConfig, linears: Sequence[Linear]) -> None:
    """Checks that every pattern of the settings means at least one of the layers.

    Raises:
        ConfigError: One does not; the message lists some of the layers' names.
    """
    patterns = [("--include", each) for each in config.include] + [("--exclude", each) for each in config.exclude]
    patterns += [("--set", pattern) for pattern, _, _ in config.overrides]
    for option, pattern in patterns:
        if not any(matches(linear, pattern) for linear in linears):
            names = list(dict.fromkeys(linear.layer for linear in linears))
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            known = f"{', '.join(names[:_NAMES_SHOWN])}{more}" if names else "none at all"
            raise ConfigError(f"{option} '{pattern}' matches no linear layer; the model has {known}")


def _choice(weights: str, activations: str, reason: str) -> _Choice:
    """Rule 4."""
    return _Choice(reason=reason) if weights == NONE else _Choice(weights, activations)


def _kept_by_name(linear: Linear) -> str | None:
    """The second half of rule 1: a part of the path that is exactly such a name."""
    parts = set(linear.layer.split("/"))
    return HEAD if parts & _HEAD_NAMES else ROUTER if parts & _ROUTER_NAMES else None


def _annotate(node: ir.Node, layer: str | None, choice: _Choice) -> bool:
    """Writes the choice into the node's metadata; whether that changed it."""
    selected = not choice.reason
    if not selected:
        logger.info("%s is left alone: %s", layer or node.name, choice.reason)
    return set_metadata(
        node.metadata_props,
        {
            LAYER: layer,
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
