"""Greedy texts compared token by token."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from text_models import LIKELY, WORDS, counting_decoder, save

from mxcompile.evaluation.data import Samples
from mxcompile.evaluation.flips import PromptFigures, continuations, prompt_tokens, summarize_flips
from mxcompile.evaluation.models import EvalModel, open_compiled


def skipping(folder: Path, after: int, **generation: int) -> EvalModel:
    """`counting_decoder`, but after one word it skips a word."""
    proto = counting_decoder(**generation)
    (tensor,) = (each for each in proto.graph.initializer if each.name == "table")
    table = np.frombuffer(tensor.raw_data, np.float32).reshape(8, 8).copy()
    table[after, (after + 2) % len(WORDS)] = LIKELY + 1
    tensor.raw_data = table.tobytes()
    return open_compiled(str(save(proto, folder / f"skipping-{after}.onnx")), library=False)


@pytest.fixture
def counting(tmp_path: Path) -> EvalModel:
    return open_compiled(str(save(counting_decoder(), tmp_path / "counting.onnx")), library=False)


def test_equal_texts_have_no_flip() -> None:
    same = PromptFigures((1, 2, 3), (1, 2, 3))
    assert (same.flips, same.first_flip, same.compared) == (0, None, 3)


def test_flips_are_counted_position_by_position() -> None:
    figures = PromptFigures((1, 2, 3, 4), (1, 5, 3, 6))
    assert (figures.flips, figures.first_flip, figures.compared) == (2, 1, 4)


@pytest.mark.parametrize("pair", [((1, 2), (1, 2, 3)), ((1, 2, 3), (1, 2))])
def test_what_only_one_text_has_is_a_flip(pair: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    figures = PromptFigures(*pair)
    assert (figures.flips, figures.first_flip, figures.compared) == (1, 2, 3)


def test_the_rate_is_over_all_positions() -> None:
    flips = summarize_flips([PromptFigures((1, 2), (1, 2)), PromptFigures((1, 2, 3), (4, 2, 5))])
    assert (flips.rate, flips.prompts, flips.flipped_prompts, flips.new_tokens) == (2 / 5, 2, 1, 5)
    assert flips.first_flips == (None, 0)


@pytest.mark.parametrize(
    ("firsts", "median"), [([None], None), ([0, None], None), ([0, None, 2], 2), ([4, 1, 2], 2), ([1, 3], 3)]
)
def test_texts_without_a_flip_count_as_late_ones(firsts: list[int | None], median: int | None) -> None:
    def prompt(first: int | None) -> PromptFigures:
        return PromptFigures((0,) * 9, tuple(int(index == first) for index in range(9)))

    assert summarize_flips([prompt(first) for first in firsts]).median_first_flip == median


def test_both_models_continue_their_own_text(counting: EvalModel, tmp_path: Path) -> None:
    figures = continuations(skipping(tmp_path, after=3), counting, [1], 5)
    assert figures.reference == (2, 3, 4, 5, 6)
    assert figures.quantized == (2, 3, 5, 6, 7)
    assert figures.first_flip == 2


def test_a_model_and_itself_have_no_flips(counting: EvalModel) -> None:
    assert summarize_flips([continuations(counting, counting, [5], 20)]).rate == 0


def test_the_end_token_ends_a_text_and_belongs_to_it(counting: EvalModel, tmp_path: Path) -> None:
    model = skipping(tmp_path, after=3, eos_token_id=5)
    figures = continuations(model, counting, [2], 10)
    assert figures.quantized == (3, 5)
    assert figures.reference == (3, 4, 5)


def test_prompts_are_the_first_halves_of_windows_far_apart() -> None:
    samples = Samples({"input_ids": np.arange(50).reshape(10, 5)}, ())
    assert list(prompt_tokens(samples, 3, 64)) == [([0, 1], 3), ([20, 21], 3), ([45, 46], 3)]
    assert list(prompt_tokens(samples, 1, 2)) == [([0, 1], 2)]
    assert len(list(prompt_tokens(samples, 99, 64))) == 10


def test_prompts_leave_padding_out() -> None:
    mask = np.array([[0, 1, 1, 1, 1], [0, 0, 0, 0, 1]])
    samples = Samples({"input_ids": np.arange(10).reshape(2, 5), "attention_mask": mask}, ())
    assert list(prompt_tokens(samples, 2, 64)) == [([1, 2], 2)]


def test_continuations_survive_json_exactly() -> None:
    figures = PromptFigures((1, 2), (3,))
    assert PromptFigures.from_dict(json.loads(json.dumps(asdict(figures)))) == figures
