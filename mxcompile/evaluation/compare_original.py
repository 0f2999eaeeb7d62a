"""The model that formats are compared with: what is measured on it, and what is timed and costed."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mxcompile.cost.phases import DEFAULT_TOKENS, PAST, TOKENS
from mxcompile.cost.storage import float_bytes
from mxcompile.cost.workload import count
from mxcompile.errors import ConfigError
from mxcompile.evaluation import fidelity
from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.fidelity import EvalOptions
from mxcompile.evaluation.footprint import Past, find_pasts, linear_weights
from mxcompile.evaluation.models import IDS, EvalModel, can_follow, open_compiled
from mxcompile.evaluation.speed import STEPS, Runs
from mxcompile.onnx_file import read_model


@dataclasses.dataclass(frozen=True)
class Original:
    """What is known of the float model before anything is compiled.

    Attributes:
        path: The file.
        format: Its numbers, such as ``float32``.
        kind: See `EvalModel`.
        samples: What quality is measured on.
        runs: What is timed.
        phases: What the cost is of, as `report_model` takes it.
        pasts: Its key-value cache; empty without one.
        weights: Number and bits of the weights of its linear layers.
        file_bytes: Size of the file, and of the data file beside it.
    """

    path: Path
    format: str
    kind: str
    samples: Samples
    runs: Runs
    phases: Mapping[str, Any]
    pasts: tuple[Past, ...]
    weights: tuple[int, int]
    file_bytes: int


def examine(plain: Path, source: str, options: EvalOptions, *, prefill: int | None, decode: int | None) -> Original:
    """Opens the original, and checks data and lengths against it.

    Args:
        plain: The file.
        source: What it was exported from, for people, and for the text that it names.
        options: What to measure on.
        prefill: Tokens of a prefill; None for 128, or half of what the model takes.
        decode: Tokens in the cache before a step of decoding; None likewise.

    Raises:
        MxCompileError: It cannot be opened, the data do not fit, or the lengths are beyond it.
    """
    model = open_compiled(str(plain), threads=options.threads, library=options.library)
    samples = fidelity.read_samples(model, model, source, options)
    runs = _runs(model, samples, source, prefill, decode)
    graph = read_model(plain)
    return Original(
        path=plain,
        format=f"float{8 * float_bytes(graph)}",
        kind=model.kind,
        samples=samples,
        runs=runs,
        phases=_phases(model, runs, plain),
        pasts=find_pasts(model.session.get_inputs()),
        weights=linear_weights(graph),
        file_bytes=sum(file.stat().st_size for file in plain.parent.glob(f"{plain.name}*")),
    )


def _runs(model: EvalModel, samples: Samples, source: str, prefill: int | None, decode: int | None) -> Runs:
    """What is timed: a prefill and decoding behind the first tokens of the data, or the first sample.

    Raises:
        ConfigError: More tokens than the model takes, or tokens for a model that takes other data.
    """
    first = samples[0]
    takes_tokens = IDS in first and all(name == IDS or can_follow(name, first) for name in model.inputs)
    decodes = takes_tokens and model.kind == "decoder" and model.has_cache
    if not takes_tokens and prefill is not None:
        raise ConfigError(f"--prefill: {source} takes {', '.join(model.inputs)}, not tokens alone; leave it out")
    if not decodes and decode is not None:
        raise ConfigError(f"--decode: {source} has no key-value cache; leave it out")
    if not takes_tokens:
        return Runs(first, None, None)
    usual = DEFAULT_TOKENS if model.max_positions is None else min(DEFAULT_TOKENS, model.max_positions // 2)
    fixed = model.inputs[IDS].shape[1]
    if isinstance(fixed, int) and prefill not in (None, fixed):
        raise ConfigError(f"--prefill {prefill}: {source} takes {fixed} tokens, no more and no less; leave it out")
    prefill = prefill or (fixed if isinstance(fixed, int) else usual)
    decode = decode or usual
    steps = _steps(model, source, prefill, decode)
    text = samples.inputs[IDS].reshape(-1)
    context = tuple(np.resize(text, decode).tolist()) if decodes else None
    return Runs({IDS: np.resize(text, (1, prefill))}, prefill, context, steps)


def _steps(model: EvalModel, source: str, prefill: int, decode: int) -> int:
    """How many steps of decoding the model can take.

    Raises:
        ConfigError: A length is beyond it.
    """
    most = model.max_positions
    if most is None:
        return STEPS
    for name, tokens, allowed in (("prefill", prefill, most), ("decode", decode, most - 1)):
        if tokens > allowed:
            raise ConfigError(
                f"--{name} {tokens} is beyond the {most} positions of {source}; at most {allowed} is allowed"
            )
    return min(STEPS, most - decode)


def _phases(model: EvalModel, runs: Runs, plain: Path) -> dict[str, Any]:
    """What the cost is of: what is timed, one sequence at a time."""
    shapes = {name: value.shape for name, value in model.inputs.items()}
    pasts = [value.shape for value in model.session.get_inputs() if value.name not in shapes]
    dims = {dim for shape in (*shapes.values(), *pasts) for dim in shape}
    if runs.tokens is not None and dims & {*TOKENS}:
        cached = {"decode": len(runs.context)} if runs.context is not None and dims & {*PAST} else {}
        return {"prefill": runs.tokens} | cached
    symbols = count(read_model(plain)).symbols
    feeds = model.feeds(runs.sample)
    named = {dim: size for name, shape in shapes.items() for dim, size in zip(shape, feeds[name].shape, strict=True)}
    return {"dims": {dim: size for dim, size in named.items() if dim in symbols}}
