"""Thresholds that turn figures into yes or no."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Final

from mxcompile.errors import ConfigError
from mxcompile.evaluation.flips import Flips
from mxcompile.evaluation.metrics import Figures
from mxcompile.evaluation.models import EvalModel


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """What is still good enough; None where anything is.

    Attributes:
        max_kl: Mean divergence, nats.
        max_kl_p99: Divergence that 99% of the predictions stay below, nats.
        min_top1: Share of likeliest tokens or classes that agree.
        max_ppl_increase: Share by which perplexity may grow: 0.02 is 2%.
        max_flip_rate: Share of greedy tokens that differ.
        min_cosine: Mean cosine of logits or embeddings.
        min_sqnr: Signal over noise, decibels.

    Raises:
        ConfigError: A value that is no number or out of range.
    """

    max_kl: float | None = None
    max_kl_p99: float | None = None
    min_top1: float | None = None
    max_ppl_increase: float | None = None
    max_flip_rate: float | None = None
    min_cosine: float | None = None
    min_sqnr: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.given.items():
            least, most = _RANGES[name]
            if not (math.isfinite(value) and least <= value <= most):
                span = f"{least:g} to {most:g}" if math.isfinite(least + most) else "0 and above"
                span = "any number of decibels" if name == "min_sqnr" else span
                raise ConfigError(f"{option_name(name)} is {value:g}: {span} is allowed")

    @property
    def given(self) -> dict[str, float]:
        """Those that are set, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


_RANGES: Final[dict[str, tuple[float, float]]] = {
    "max_kl": (0, math.inf),
    "max_kl_p99": (0, math.inf),
    "min_top1": (0, 1),
    "max_ppl_increase": (0, math.inf),
    "max_flip_rate": (0, 1),
    "min_cosine": (-1, 1),
    "min_sqnr": (-math.inf, math.inf),
}

_MEASURED: Final[dict[str, Callable[[Figures, Flips | None], float | None]]] = {
    "max_kl": lambda figures, _: None if figures.kl is None else figures.kl.mean,
    "max_kl_p99": lambda figures, _: None if figures.kl is None else figures.kl.p99,
    "min_top1": lambda figures, _: figures.top1_agreement,
    "max_ppl_increase": lambda figures, _: figures.perplexity_increase,
    "max_flip_rate": lambda _, flips: None if flips is None else flips.rate,
    "min_cosine": lambda figures, _: figures.cosine,
    "min_sqnr": lambda figures, _: figures.sqnr_db,
}

_OF_ALL = ("min_cosine", "min_sqnr")
_OF_LOGITS = ("max_kl", "max_kl_p99", "min_top1", *_OF_ALL)
_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "decoder": tuple(_MEASURED),
    "token classifier": _OF_LOGITS,
    "classifier": _OF_LOGITS,
    "encoder": _OF_ALL,
}


@dataclasses.dataclass(frozen=True)
class Gate:
    """One threshold and what was measured.

    Attributes:
        threshold: Its name, such as ``max_kl``.
        measured: The figure.
        allowed: The limit.
    """

    threshold: str
    measured: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the figure keeps the limit; the limit itself does."""
        at_most = self.threshold.startswith("max")
        return self.measured <= self.allowed if at_most else self.measured >= self.allowed

    def __str__(self) -> str:
        """What failed, for a message."""
        sign = "above" if self.threshold.startswith("max") else "below"
        return f"{option_name(self.threshold)}: {self.measured:.6g} is {sign} {self.allowed:g}"

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready but for infinities."""
        return {**dataclasses.asdict(self), "passed": self.passed}


def option_name(threshold: str) -> str:
    """The option of the command line: ``--max-kl`` of ``max_kl``."""
    return f"--{threshold.replace('_', '-')}"


def check_thresholds(thresholds: Thresholds, model: EvalModel, *, flips: bool) -> None:
    """Sees to it that everything asked for can be measured, before anything is.

    Args:
        thresholds: The thresholds.
        model: The model.
        flips: Whether greedy texts are generated.

    Raises:
        ConfigError: A threshold on a figure that this kind of model does not have.
    """
    for name in thresholds.given:
        if name not in _KINDS[model.kind]:
            allowed = ", ".join(map(option_name, _KINDS[model.kind]))
            article = "an" if model.kind[0] in "aeiou" else "a"
            raise ConfigError(
                f"{option_name(name)}: {model.name} is {article} {model.kind}, which has no such figure; "
                f"for it there are {allowed}"
            )
        if name == "max_flip_rate" and not flips:
            why = "--prompts 0 turns generation off" if model.has_cache else f"{model.name} has no key-value cache"
            raise ConfigError(f"{option_name(name)}: nothing is generated, because {why}; leave it out, or change that")


def apply_thresholds(thresholds: Thresholds, figures: Figures, flips: Flips | None) -> tuple[Gate, ...]:
    """Every threshold that is set, with what was measured."""
    gates = []
    for name, allowed in thresholds.given.items():
        measured = _MEASURED[name](figures, flips)
        assert measured is not None  # check_thresholds has seen to it
        gates.append(Gate(name, measured, allowed))
    return tuple(gates)
