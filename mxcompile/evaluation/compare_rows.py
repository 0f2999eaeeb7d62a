"""Rows of a comparison, from what was compiled, evaluated, estimated and timed."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from mxcompile.cost.report import CostReport, figures, weakest
from mxcompile.evaluation.compare_original import Original
from mxcompile.evaluation.compare_report import ComparedFormat, EngineCost, Quality, Size, Speed
from mxcompile.evaluation.footprint import cache_bytes
from mxcompile.evaluation.report import EvalReport
from mxcompile.evaluation.speed import Runs, Timing
from mxcompile.report import CompileReport

_ORIGINAL: Final = 0
_FORMAT: Final = 1
"""Rows of `Timing`."""


def make_rows(
    original: Original,
    compiled: Mapping[str, CompileReport],
    quality: Mapping[str, EvalReport],
    costs: Mapping[str, CostReport],
    timings: Mapping[str, Timing | None],
) -> tuple[ComparedFormat, ...]:
    """The original, and every format that was compiled.

    Args:
        original: The original.
        compiled: What was compiled, by format.
        quality: What was measured, by format.
        costs: What was estimated, by format or the original's, for those that could be.
        timings: What was timed, by format; None where nothing was.
    """
    runs, every = original.runs, [timing for timing in timings.values() if timing is not None]
    rows = [
        ComparedFormat(
            original.format,
            _own_quality(next(iter(quality.values()))),
            _size(original, None),
            _cost(costs.get(original.format), runs),
            _speed(every, runs, _ORIGINAL),
        )
    ]
    for name, each in compiled.items():
        timing = timings[name]
        speed = _speed([] if timing is None else [timing], runs, _FORMAT)
        size, cost = _size(original, each), _cost(costs.get(name), runs)
        rows.append(ComparedFormat(name, _quality(quality[name]), size, cost, speed))
    return tuple(rows)


def cost_status(costs: Iterable[CostReport]) -> str | None:
    """The weakest origin of the figures behind the costs; None if there are none."""
    statuses = [figure["status"] for report in costs for figure in figures(report.phases[0].cost)]
    return weakest(statuses) if statuses else None


def _quality(report: EvalReport) -> Quality:
    """The figures of a format."""
    found, flips = report.figures, report.flips
    assert found is not None  # there are no tasks
    pair, kl = found.perplexity, found.kl
    return Quality(
        perplexity=None if pair is None else pair.quantized,
        perplexity_increase=found.perplexity_increase,
        kl=None if kl is None else kl.mean,
        kl_p99=None if kl is None else kl.p99,
        top1_agreement=found.top1_agreement,
        cosine=found.cosine,
        sqnr_db=found.sqnr_db,
        flip_rate=None if flips is None else flips.rate,
    )


def _own_quality(report: EvalReport) -> Quality:
    """The figures of the original, which does not differ from itself; as many as a format has."""
    found, measured = _quality(report), report.figures
    pair = None if measured is None else measured.perplexity
    same = {"perplexity_increase": 0.0, "kl": 0.0, "kl_p99": 0.0, "top1_agreement": 1.0, "flip_rate": 0.0}
    known = {name: value for name, value in same.items() if getattr(found, name) is not None}
    perplexity = None if pair is None else pair.reference
    return dataclasses.replace(found, perplexity=perplexity, cosine=1.0, sqnr_db=math.inf, **known)


def _size(original: Original, compiled: CompileReport | None) -> Size:
    """What the original or a format takes; weights that are not quantized stay as they are."""
    number, bits = original.weights
    if compiled is None:
        quantized, per_quantized, packed = 0, None, None
        file_bytes = original.file_bytes
    else:
        quantized, per_quantized, packed = compiled.quantized_weights, compiled.bits_per_weight, compiled.kv_cache
        file_bytes = compiled.bytes_after
    stored = bits + quantized * ((per_quantized or 0.0) - bits / number) if number else None
    context = original.runs.context
    return Size(
        bits_per_quantized_weight=per_quantized,
        bits_per_weight=None if stored is None else stored / number,
        file_bytes=file_bytes,
        kv_bytes_per_token=None
        if context is None
        else cache_bytes(original.pasts, packed, len(context)) / len(context),
    )


def _cost(report: CostReport | None, runs: Runs) -> EngineCost:
    """What a form of the model costs, if it could be estimated: the prefill, and a step of decoding."""
    if report is None:
        return EngineCost()
    first, *others = (phase.total for phase in report.phases)
    return EngineCost(
        prefill_energy_pj_per_token=first.energy_pj / (runs.tokens or 1),
        prefill_latency_us=first.latency_us,
        decode_energy_pj_per_token=others[0].energy_pj if others else None,
        decode_latency_us=others[0].latency_us if others else None,
        area_um2=first.area_um2,
    )


def _speed(timings: Sequence[Timing], runs: Runs, row: int) -> Speed:
    """Speeds over all rounds; those of the original come from the rounds of every format."""
    prefills = [prefill for prefill, _ in timings]
    decodes = [decode for _, decode in timings if decode is not None]
    rates: list[float | None] = []
    for tokens, times in ((runs.tokens or 1, prefills), (runs.steps, decodes)):
        if times:
            both = np.concatenate(times, axis=1)
            rates += [tokens / float(np.median(both[row])), float(np.median(both[_ORIGINAL] / both[row]))]
        else:
            rates += [None, None]
    return Speed(*rates)
