"""Timing: models take turns, and every round of decoding begins behind the same context."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import text_models

from mxcompile import generation, runtime
from mxcompile.evaluation.models import EvalModel, open_compiled
from mxcompile.evaluation.speed import Runs, time_models


def counting(folder: Path) -> EvalModel:
    """A decoder whose cache holds its tokens, one float32 each."""
    path = text_models.save(text_models.counting_decoder(), folder / "counting.onnx")
    return open_compiled(str(path), threads=1, library=False)


def runs(*context: int) -> Runs:
    return Runs({"input_ids": np.arange(4)[np.newaxis]}, 4, context or None, steps=2)


def test_every_other_round_is_in_reverse_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = [counting(tmp_path) for _ in range(2)]
    order: list[int] = []
    run = runtime.run

    def recorded(session: Any, *arguments: Any) -> Any:
        order.append([model.session for model in opened].index(session))
        return run(session, *arguments)

    monkeypatch.setattr(runtime, "run", recorded)
    prefill, decode = time_models(opened, runs(1, 2, 3), 3, lambda done, total: None)
    assert decode is not None
    assert prefill.shape == decode.shape == (2, 3)
    assert (np.array([prefill, decode]) > 0).all()
    forth, back = [0, 1, 0, 0, 1, 1], [1, 0, 1, 1, 0, 0]
    assert order == [0, 1, *forth, *back, *forth, *back]  # the contexts, then a round that does not count


def test_decoding_begins_behind_the_same_context_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[list[int]] = []
    step = generation.Cache.step

    def recorded(cache: generation.Cache, tokens: Any) -> Any:
        fed.append([*tokens, cache.nbytes])
        return step(cache, tokens)

    monkeypatch.setattr(generation.Cache, "step", recorded)
    time_models([counting(tmp_path)], runs(1, 2, 3), 1, lambda done, total: None)
    assert fed == [[1, 2, 3, 0], *2 * [[4, 3 * 4], [5, 4 * 4]]]


def test_without_a_context_nothing_is_decoded(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prefill, decode = time_models([counting(tmp_path)], runs(), 2, lambda *steps: told.append(steps))
    assert (prefill.shape, decode) == ((1, 2), None)
    assert told == [(0, 3), (1, 3), (2, 3)]
