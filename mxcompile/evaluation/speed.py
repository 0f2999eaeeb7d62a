"""How fast models run on this machine, side by side: they take turns, so that a disturbance hits all of them."""

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from mxcompile import generation, runtime
from mxcompile.evaluation.models import Array, EvalModel

STEPS: Final = 16
"""Steps of decoding that are timed together, unless the model takes no more tokens."""

Times = npt.NDArray[np.float64]
"""Seconds, float64 ``[models, rounds]``."""

Timing = tuple[Times, Times | None]
"""Times of prefills and of decoding; None where nothing is decoded."""


@dataclasses.dataclass(frozen=True)
class Runs:
    """What is timed.

    Attributes:
        sample: Inputs of a prefill, or of a single run.
        tokens: Tokens that it has; None where it is a sample of other data.
        context: Tokens in the cache before decoding; None without a cache.
        steps: Greedy steps behind them.
    """

    sample: Mapping[str, Array]
    tokens: int | None
    context: tuple[int, ...] | None
    steps: int = STEPS


def time_models(models: Sequence[EvalModel], runs: Runs, rounds: int, progress: Callable[[int, int], None]) -> Timing:
    """Times of prefills, and of decoding.

    1. A prefill is one run with an empty cache. Its inputs are in onnxruntime before, its results stay there.
    2. Decoding begins behind the same context every time; every step chooses the likeliest token, an end or not.
    3. In each round all models prefill, then all decode; every other round in reverse order. A first round does not
       count.

    Args:
        models: The models.
        runs: What to time.
        rounds: Rounds that count.
        progress: Called with the number of rounds done and of all.

    Raises:
        MxCompileError: A model fails.
    """
    prefills = [_prefill(model, runs) for model in models]
    decodes = [] if runs.context is None else [_decode(model, runs.context, runs.steps) for model in models]
    times = np.empty((2, len(models), rounds + 1))
    for turn in range(rounds + 1):
        progress(turn, rounds + 1)
        for row, candidates in zip(times, (prefills, decodes), strict=True):
            for index, run in sorted(enumerate(candidates), reverse=bool(turn % 2)):
                start = time.perf_counter()
                run()
                row[index, turn] = time.perf_counter() - start
    return times[0, :, 1:], times[1, :, 1:] if decodes else None


def _prefill(model: EvalModel, runs: Runs) -> Callable[[], object]:
    """Rule 1."""
    feeds = {name: runtime.to_value(array) for name, array in model.feeds(runs.sample).items()}
    outputs = [value.name for value in model.session.get_outputs()]
    return lambda: runtime.run(model.session, outputs, feeds)


def _decode(model: EvalModel, context: Sequence[int], steps: int) -> Callable[[], object]:
    """Rule 2."""
    filled = generation.Cache(model.session, model.name)
    first = int(np.argmax(filled.step(context)))

    def run() -> None:
        cache, token = copy.copy(filled), first  # A step replaces the values of a cache and changes none.
        for _ in range(steps):
            token = int(np.argmax(cache.step([token])))

    return run
