"""A format for each product: the cheapest mixture that keeps a bound on the perplexity.

1. For every candidate format the divergence of each product alone is measured (`mxcompile.evaluation.switched_model`);
   a product in float has none.
2. Divergences are added. The logarithm of the perplexity is taken to grow by their sum times a slope, the greatest
   that the candidates have as a whole, at least 1: under the model's own distribution the expected growth of the loss
   is the divergence.
3. The cheapest assignment within the bound is found (`mxcompile.evaluation.assignment`).
4. It is compiled and evaluated. If it does not keep the bound after all, the budget shrinks by what was missing, a few
   times at most.
"""

import collections
import dataclasses
import functools
import glob
import importlib.metadata
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from mxcompile.compiler import compile_model
from mxcompile.config import CompileConfig
from mxcompile.errors import ConfigError, MxCompileError
from mxcompile.evaluation import fidelity
from mxcompile.evaluation.assignment import Float64, assign, front, total
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.fidelity import EvalOptions, evaluate
from mxcompile.evaluation.metrics import Figures
from mxcompile.evaluation.models import IDS
from mxcompile.evaluation.plain import open_plain
from mxcompile.evaluation.report import DataReport
from mxcompile.evaluation.search_costs import energies, weight_bits
from mxcompile.evaluation.search_report import Assigned, FrontPoint, SearchReport
from mxcompile.evaluation.sensitivity import DEFAULT_WINDOWS
from mxcompile.evaluation.switched_model import Change, Tell, measure, open_switched
from mxcompile.evaluation.switches import Switch
from mxcompile.evaluation.thresholds import Thresholds
from mxcompile.formats import NONE, get_format
from mxcompile.output import Destination

Objective = Literal["bits", "energy"]

ATTEMPTS: Final = 5
"""Assignments that are evaluated, at most."""

_MARGIN: Final = 0.95  # Of what was missing: the same budget again would give the same assignment.


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """What to search for.

    Attributes:
        formats: Candidates, as ``--format``; float is always one.
        max_ppl_increase: Share by which the perplexity may grow.
        objective: What is to be least: ``bits`` of the weights, or ``energy`` of the products in a prefill.
        include: Globs over layers: search only these.
        exclude: Globs over layers: leave these alone.
        attention: Whether attention products get formats too.
        engine: For the energy: see `mxcompile.cost`.
        technology: For the energy.

    Raises:
        ConfigError: No candidate, one twice, an unknown objective, or a share out of range.
        FormatError: An unknown format.
    """

    formats: tuple[str, ...]
    max_ppl_increase: float
    objective: Objective = "bits"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    attention: bool = True
    engine: str = "edge-npu"
    technology: str = "freepdk45"

    def __post_init__(self) -> None:
        Thresholds(max_ppl_increase=self.max_ppl_increase)
        if self.objective not in get_args(Objective):
            raise ConfigError(f"--objective is {self.objective!r}; allowed are {' and '.join(get_args(Objective))}")
        if not self.formats or len(set(self.formats)) < len(self.formats) or NONE in self.formats:
            raise ConfigError(
                f"--formats is {','.join(self.formats)!r}: give different formats, such as amxfp4,mxfp8_e4m3; float is "
                "always a candidate"
            )
        for name in self.formats:
            get_format(name)

    @property
    def selection(self) -> dict[str, Any]:
        """Which products are searched, as `CompileConfig.of` and `compile_model` take it."""
        return {"include": self.include, "exclude": self.exclude, "attention": self.attention}


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What every product costs and damages in every candidate; the last candidate is float.

    Attributes:
        formats: The candidates.
        switches: The products as each candidate quantizes them.
        damages: Divergences, nats, float64 ``[products, formats]``.
        costs: Bits, or pJ a token, of the same shape.
        whole: The model with every product in each candidate.
        slope: Growth of the logarithm of the perplexity for a nat of divergence.
    """

    formats: tuple[str, ...]
    switches: tuple[tuple[Switch, ...], ...]
    damages: Float64
    costs: Float64
    whole: tuple[Change, ...]
    slope: float

    def overrides(self, assignment: Sequence[int]) -> tuple[tuple[str, str, str], ...]:
        """The ``--set`` options of an assignment."""
        chosen = []
        for product, index in enumerate(assignment):
            switch = self.switches[min(index, len(self.switches) - 1)][product]
            pair = (NONE, NONE) if self.formats[index] == NONE else (switch.weights, switch.activations)
            chosen.append((glob.escape(switch.layer), *pair))
        return tuple(chosen)


def search(
    source: str,
    wanted: SearchOptions,
    output: str,
    options: EvalOptions | None = None,
    *,
    force: bool = False,
    progress: Tell | None = None,
    keep: Callable[[Samples], None] | None = None,
) -> SearchReport:
    """Finds the cheapest mixture of formats that keeps the bound, and compiles it.

    Args:
        source: A hub id, a Hugging Face folder, or an .onnx file.
        wanted: What to search for.
        output: As of `compile_model`.
        options: What to measure on, as of `sensitivity`.
        force: Whether existing output is replaced.
        progress: Called with the phase and its steps.
        keep: Called with the data, once every product was measured on it.

    Raises:
        MxCompileError: A model that cannot be opened, compiled or run; no mixture keeps the bound.
    """
    start, tell = time.perf_counter(), progress or (lambda phase, done, total: None)
    options = dataclasses.replace(options or EvalOptions(windows=DEFAULT_WINDOWS), prompts=0, resume=None)
    Destination.of(output, force=force, source=source)
    with open_plain(source, options.task, tell) as plain:
        candidates, samples = _measured(plain, source, wanted, options, tell)
        if keep is not None:
            keep(samples)
        data = DataReport(samples.files, samples.missing, samples.digest, len(samples), samples.seq_len)
        options = dataclasses.replace(options, data=samples.files)
        chosen, measured, evaluations = _verified(plain, candidates, wanted, options, tell)
    tell("compiling the result", 0, 0)
    settings = _settings(candidates, wanted, chosen)
    compile_model(source, output=output, force=force, task=options.task, **settings)
    point = _point(candidates, chosen)
    return SearchReport(
        version=importlib.metadata.version("mxcompile"),
        source=source,
        output=output,
        objective=wanted.objective,
        unit="bits a weight" if wanted.objective == "bits" else "pJ a token",
        max_ppl_increase=wanted.max_ppl_increase,
        data=data,
        products=_assigned(candidates, chosen),
        cost=point.cost,
        predicted_increase=point.perplexity_increase,
        measured=measured,
        evaluations=evaluations,
        front=tuple(_point(candidates, each.assignment) for each in front(candidates.damages, candidates.costs)),
        uniform=_uniform(candidates),
        seconds=time.perf_counter() - start,
    )


def _measured(
    plain: Path, source: str, wanted: SearchOptions, options: EvalOptions, tell: Tell
) -> tuple[Candidates, Samples]:
    """Steps 1 and 2: every candidate's divergences and costs."""
    switches: list[tuple[Switch, ...]] = []
    columns: list[list[float]] = []
    whole: list[Change] = []
    for fmt in wanted.formats:
        session: dict[str, Any] = {"task": options.task, "threads": options.threads, "library": options.library}
        config = CompileConfig.of(fmt, **wanted.selection, kv_cache="float")
        with open_switched(str(plain), config, **session) as model:
            if model.kind != "decoder":
                raise ConfigError(f"{source}: is a {model.kind}, which has no perplexity; search needs a decoder")
            samples = fidelity.read_samples(model, model, source, options)
            count = len(model.switches)
            choices = [np.ones(count, np.bool_), *np.eye(count, dtype=np.bool_)]
            everything, *single = measure(model, samples, choices, functools.partial(tell, fmt))
            switches.append(model.switches)
            whole.append(everything)
            columns.append([change.kl or 0.0 for change in single])
    damages = np.array([*columns, [0.0] * count]).T
    slopes = [
        math.log1p(change.perplexity_increase or 0.0) / divergence
        for change, divergence in zip(whole, damages.sum(axis=0), strict=False)
        if divergence > 0
    ]
    if wanted.objective == "bits":
        costs = weight_bits(switches)
    else:
        tell("counting energy", 0, 0)
        settings = [(fmt, wanted.selection) for fmt in wanted.formats]
        tokens, units = samples.inputs[IDS].shape[1], {"engine": wanted.engine, "technology": wanted.technology}
        costs = energies(plain, settings, switches[0], tokens, **units)
    formats = (*wanted.formats, NONE)
    return Candidates(formats, tuple(switches), damages, costs, tuple(whole), max([1.0, *slopes])), samples


def _settings(candidates: Candidates, wanted: SearchOptions, assignment: Sequence[int]) -> dict[str, Any]:
    """What `compile_model` needs to know for an assignment."""
    quantized = [index for index in assignment if candidates.formats[index] != NONE]
    return {
        "format": candidates.formats[max(sorted(set(quantized)), key=quantized.count)],
        **wanted.selection,
        "overrides": candidates.overrides(assignment),
        "kv_cache": "float",
    }


def _verified(
    plain: Path, candidates: Candidates, wanted: SearchOptions, options: EvalOptions, tell: Tell
) -> tuple[tuple[int, ...], Figures, int]:
    """Steps 3 and 4: the assignment, its figures, and how many were evaluated."""
    target = math.log1p(wanted.max_ppl_increase)
    budget, found = target / candidates.slope, "everything must stay in float"
    for attempt in range(1, ATTEMPTS + 1):
        chosen = assign(candidates.damages, candidates.costs, budget)
        if all(candidates.formats[index] == NONE for index in chosen):
            break
        tell(f"mixture {attempt}", 0, 0)
        with tempfile.TemporaryDirectory(prefix="mxcompile-") as folder:
            file = str(Path(folder, "mixture.onnx"))
            compile_model(plain, output=file, **_settings(candidates, wanted, chosen.tolist()))
            figures = evaluate(file, str(plain), options, progress=tell).figures
        assert figures is not None  # there are no tasks
        increase = figures.perplexity_increase
        assert increase is not None  # it is a decoder
        if increase <= wanted.max_ppl_increase:
            return tuple(chosen.tolist()), figures, attempt
        found = f"the last of {attempt} mixtures has {increase:.4%}"
        budget = _MARGIN * min(budget, total(candidates.damages, chosen)) * target / math.log1p(increase)
    raise MxCompileError(
        f"no mixture of {', '.join(wanted.formats)} keeps --max-ppl-increase {wanted.max_ppl_increase:g}: {found}; "
        "allow more, or add a better format to --formats"
    )


def _assigned(candidates: Candidates, assignment: Sequence[int]) -> tuple[Assigned, ...]:
    """The assignment, product by product."""
    return tuple(
        Assigned(
            layer=switch.layer,
            format=candidates.formats[index],
            weights=weights,
            activations=activations,
            kl=float(candidates.damages[product, index]),
            cost=float(candidates.costs[product, index]),
        )
        for product, (switch, index, (_, weights, activations)) in enumerate(
            zip(candidates.switches[0], assignment, candidates.overrides(assignment), strict=True)
        )
    )


def _predicted(candidates: Candidates, damage: float) -> float:
    """Step 2: growth of the perplexity for a sum of divergences."""
    return math.expm1(candidates.slope * damage)


def _point(candidates: Candidates, assignment: Sequence[int]) -> FrontPoint:
    """An assignment for the table."""
    chosen = np.array(assignment)
    counts = collections.Counter(candidates.formats[index] for index in assignment)
    increase = _predicted(candidates, total(candidates.damages, chosen))
    return FrontPoint(total(candidates.costs, chosen), increase, {fmt: counts[fmt] for fmt in candidates.formats})


def _uniform(candidates: Candidates) -> tuple[FrontPoint, ...]:
    """Every candidate for all products, as measured."""
    points = (_point(candidates, [index] * len(candidates.damages)) for index in range(len(candidates.whole)))
    return tuple(
        dataclasses.replace(point, perplexity_increase=change.perplexity_increase or 0.0)
        for point, change in zip(points, candidates.whole, strict=True)
    )
