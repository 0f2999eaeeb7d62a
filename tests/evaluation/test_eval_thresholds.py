"""Thresholds: what they allow, what passes, and what they say."""

import math
from typing import Any

import pytest

from mxcompile.errors import ConfigError
from mxcompile.evaluation.flips import Flips
from mxcompile.evaluation.metrics import Figures, Pair, Spread
from mxcompile.evaluation.thresholds import Gate, Thresholds, apply_thresholds, option_name

FIGURES = Figures(
    predictions=100,
    perplexity=Pair(10, 11),
    kl=Spread(0.1, 0.05, 0.5, 2),
    top1_agreement=0.9,
    cosine=0.99,
    least_cosine=0.5,
    sqnr_db=20,
)
FLIPS = Flips(0.25, 4, 2, 3, (3, None, 0, None), 64)


@pytest.mark.parametrize(
    ("name", "allowed", "passed"),
    [
        ("max_kl", 0.1, True),
        ("max_kl", 0.099, False),
        ("max_kl_p99", 0.5, True),
        ("max_kl_p99", 0.4, False),
        ("min_top1", 0.9, True),
        ("min_top1", 0.91, False),
        ("max_ppl_increase", 0.11, True),
        ("max_ppl_increase", 0.09, False),
        ("max_flip_rate", 0.25, True),
        ("max_flip_rate", 0.24, False),
        ("min_cosine", 0.99, True),
        ("min_cosine", 0.995, False),
        ("min_sqnr", 20, True),
        ("min_sqnr", 20.5, False),
    ],
)
def test_a_figure_passes_up_to_the_limit(name: str, allowed: float, passed: bool) -> None:
    (gate,) = apply_thresholds(Thresholds(**{name: allowed}), FIGURES, FLIPS)
    assert gate.threshold == name
    assert gate.passed == passed
    assert gate.to_dict() == {"threshold": name, "measured": gate.measured, "allowed": allowed, "passed": passed}


def test_no_thresholds_give_no_gates() -> None:
    assert apply_thresholds(Thresholds(), FIGURES, FLIPS) == ()


def test_infinite_signal_over_noise_passes_every_limit() -> None:
    assert Gate("min_sqnr", math.inf, 300).passed


def test_a_gate_says_what_was_measured_and_what_is_allowed() -> None:
    assert str(Gate("max_kl", 0.125, 0.1)) == "--max-kl: 0.125 is above 0.1"
    assert str(Gate("min_top1", 0.8, 0.9)) == "--min-top1: 0.8 is below 0.9"
    assert option_name("max_ppl_increase") == "--max-ppl-increase"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_kl": -1}, "--max-kl is -1: 0 and above is allowed"),
        ({"max_kl": math.nan}, "--max-kl is nan"),
        ({"max_kl": math.inf}, "--max-kl is inf"),
        ({"max_ppl_increase": -0.02}, "--max-ppl-increase is -0.02: 0 and above is allowed"),
        ({"min_top1": 1.5}, "--min-top1 is 1.5: 0 to 1 is allowed"),
        ({"max_flip_rate": 2}, "--max-flip-rate is 2: 0 to 1 is allowed"),
        ({"min_cosine": -2}, "--min-cosine is -2: -1 to 1 is allowed"),
        ({"min_sqnr": math.nan}, "--min-sqnr is nan: any number of decibels is allowed"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Thresholds(**values)


def test_negative_decibels_are_allowed() -> None:
    assert Thresholds(min_sqnr=-3).given == {"min_sqnr": -3}
