"""What the quantization of each product does to the model, and which ones to leave in float for a quality target."""

import dataclasses
import glob
import importlib.metadata
import math
import shlex
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from mxcompile.config import CompileConfig
from mxcompile.evaluation import fidelity, metrics
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.fidelity import EvalOptions
from mxcompile.evaluation.report import DataReport, finite
from mxcompile.evaluation.switched_model import Change, Choice, SwitchedModel, Tell, measure, open_switched
from mxcompile.evaluation.thresholds import check_thresholds
from mxcompile.report import LayerReport

DEFAULT_WINDOWS: Final = 16
"""Windows unless the options say otherwise: a ranking needs fewer predictions than a perplexity for a paper."""


@dataclasses.dataclass(frozen=True)
class ProductSensitivity:
    """What the quantization of one product does.

    Attributes:
        layer: Its path, as ``--set`` and ``--exclude`` name it.
        attention: ``qk``, ``pv``, or None for a linear layer.
        weights: Format of the weights, or of keys or values.
        activations: Format of the other operand.
        elements: Weights of a linear layer; 0 of an attention product.
        sqnr_db: Power of its own result over that of the error, both on the inputs that it has in the float model;
            infinite if there is none.
        alone: The model in which it alone is quantized.
        others: The model in which everything but it is quantized.
    """

    layer: str
    attention: str | None
    weights: str
    activations: str
    elements: int
    sqnr_db: float
    alone: Change
    others: Change

    @property
    def damage(self) -> float:
        """What products are ranked by: the divergence if it alone is quantized, else the noise, in decibels."""
        return -self.alone.sqnr_db if self.alone.kl is None else self.alone.kl


@dataclasses.dataclass(frozen=True)
class Selection:
    """What to leave in float so that a target is kept.

    Attributes:
        max_ppl_increase: The target: share by which the perplexity may grow.
        excluded: Layers to leave alone; all of them if nothing can be quantized.
        change: The model with the others quantized, measured.
        elements: Weights that stay in float for it.
    """

    max_ppl_increase: float
    excluded: tuple[str, ...]
    change: Change
    elements: int

    @property
    def options(self) -> str:
        """Options of ``mxcompile compile``, quoted for patterns and for a shell."""
        return " ".join(f"--exclude {shlex.quote(glob.escape(layer))}" for layer in self.excluded)


@dataclasses.dataclass(frozen=True)
class SensitivityReport:
    """What `sensitivity` found.

    Attributes:
        version: Version of mxcompile.
        source: The model.
        kind: See `EvalModel`.
        data: What it was measured on.
        everything: The model with all products quantized.
        products: The products, the most sensitive first.
        selection: What to leave in float; None without a target.
        skipped: Products that the settings do not quantize, with reasons.
        seconds: Time of all of it.
    """

    version: str
    source: str
    kind: str
    data: DataReport
    everything: Change
    products: tuple[ProductSensitivity, ...]
    selection: Selection | None
    skipped: tuple[LayerReport, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values; an infinite figure is null."""
        content = dataclasses.asdict(self)
        if self.selection is not None:
            content["selection"]["options"] = self.selection.options
        result = finite(content)
        assert isinstance(result, dict)
        return result


def sensitivity(
    source: str,
    config: CompileConfig,
    options: EvalOptions | None = None,
    *,
    progress: Tell | None = None,
    keep: Callable[[Samples], None] | None = None,
) -> SensitivityReport:
    """Measures what the quantization of every product does, alone and together with the others.

    Args:
        source: A hub id, a Hugging Face folder, or an .onnx file.
        config: What to quantize, and how.
        options: What to measure on; prompts and tasks do not matter. Its threshold ``max_ppl_increase`` is the target
            of the selection. None takes `DEFAULT_WINDOWS` windows of the text that the source names.
        progress: Called with the phase and its steps.
        keep: Called with the data that was read, before anything runs on it.

    Raises:
        MxCompileError: A model that cannot be opened or run, data that does not fit, or settings that cannot be.
    """
    start, tell = time.perf_counter(), progress or (lambda phase, done, total: None)
    options = options or EvalOptions(windows=DEFAULT_WINDOWS)
    session: dict[str, Any] = {"task": options.task, "threads": options.threads, "library": options.library}
    with open_switched(source, config, **session, progress=tell) as model:
        check_thresholds(options.thresholds, model, flips=False)
        samples = fidelity.read_samples(model, model, source, options)
        if keep is not None:
            keep(samples)
        everything, products = _products(model, samples, tell)
        target, selection = options.thresholds.max_ppl_increase, None
        if target is not None:
            selection = _select(model, samples, products, everything, target, tell)
    return SensitivityReport(
        version=importlib.metadata.version("mxcompile"),
        source=source,
        kind=model.kind,
        data=DataReport(samples.files, samples.missing, samples.digest, len(samples), samples.seq_len),
        everything=everything,
        products=tuple(products),
        selection=selection,
        skipped=model.skipped,
        seconds=time.perf_counter() - start,
    )


def _products(model: SwitchedModel, samples: Samples, tell: Tell) -> tuple[Change, list[ProductSensitivity]]:
    """The model with everything quantized, and every product, the most sensitive first."""
    count = len(model.switches)
    single = np.eye(count, dtype=np.bool_)
    choices = [np.ones(count, np.bool_), *single, *~single]
    everything, *changes = measure(model, samples, choices, lambda done, of: tell("products", done, of))
    noise = product_noise(model, samples, tell)
    products = [
        ProductSensitivity(**vars(switch), sqnr_db=sqnr, alone=alone, others=others)
        for switch, sqnr, alone, others in zip(model.switches, noise, changes[:count], changes[count:], strict=True)
    ]
    return everything, sorted(products, key=lambda product: -product.damage)


def product_noise(model: SwitchedModel, samples: Samples, tell: Tell) -> list[float]:
    """The ratio of signal and noise of every product on its inputs in the float model, in decibels."""
    windows = []
    for index in range(len(samples)):
        tell("noise of products", index, len(samples))
        windows.append(model.powers(samples[index]))
    return [metrics.sqnr(*(math.fsum(each) for each in zip(*rows, strict=True))) for rows in zip(*windows, strict=True)]


def _select(
    model: SwitchedModel,
    samples: Samples,
    products: Sequence[ProductSensitivity],
    everything: Change,
    target: float,
    tell: Tell,
) -> Selection:
    """Leaves the most sensitive products in float, as few as keep the target.

    How many is found by bisection; the answer itself is measured. Every product in float keeps any target.
    """
    positions = {switch.layer: index for index, switch in enumerate(model.switches)}
    ranking = [positions[product.layer] for product in products]

    def tried(kept: int) -> Change:
        choice: Choice = np.ones(len(ranking), np.bool_)
        choice[ranking[:kept]] = False
        (change,) = measure(model, samples, [choice], lambda done, of: tell(f"{kept} products in float", done, of))
        return change

    def keeps(change: Change) -> bool:
        assert change.perplexity_increase is not None  # check_thresholds has seen to it
        return change.perplexity_increase <= target

    too_few, enough, change = -1, 0, everything
    if not keeps(everything):
        too_few, enough = 0, len(ranking)
        change = tried(enough)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        found = tried(middle)
        if keeps(found):
            enough, change = middle, found
        else:
            too_few = middle
    left = products[:enough]
    return Selection(target, tuple(each.layer for each in left), change, sum(each.elements for each in left))
