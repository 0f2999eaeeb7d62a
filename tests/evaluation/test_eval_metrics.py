"""Figures of outputs: against numbers computed by hand, and against torch."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from mxcompile.evaluation import metrics
from mxcompile.evaluation.metrics import WindowFigures, compare, summarize

ROUNDING = 2.0**-40
"""Relative difference of figures from two orders of summation in float64: a thousand roundings of 2**-53 at most."""


def random_logits(seed: int, rows: int = 5, size: int = 11) -> np.ndarray:
    return (4 * np.random.default_rng(seed).standard_normal((rows, size))).astype(np.float32)


def test_divergence_of_two_known_distributions() -> None:
    # p = (1/2, 1/2), q = (1/4, 3/4): KL = ln(2)/2 + ln(2/3)/2 = ln(4/3)/2.
    reference, model = np.log(np.array([[0.5, 0.5]])), np.log(np.array([[0.25, 0.75]]))
    assert metrics.divergences(reference, model) == pytest.approx([math.log(4 / 3) / 2], rel=ROUNDING)


def test_figures_of_one_window_by_hand() -> None:
    # Logits with the probabilities (1/2, 1/4, 1/4) and (1/4, 1/2, 1/4); the token 0 follows.
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.5, 0.25]])
    figures = compare(np.log2(p), np.log2(q))
    assert figures.signal == 1 + 4 + 4
    assert figures.noise == 1 + 1
    assert figures.cosines == (2 + 2 + 4) / 9
    assert figures.agreeing == 0
    exact = compare(np.log(p), np.log(q), targets=np.array([0]))
    assert exact.kl == pytest.approx([math.log(2) / 4], rel=ROUNDING)
    assert exact.loss == pytest.approx((math.log(2), math.log(4)), rel=ROUNDING)
    total = summarize([exact])
    assert total.perplexity is not None
    assert total.perplexity.reference == pytest.approx(2, rel=ROUNDING)
    assert total.perplexity.quantized == pytest.approx(4, rel=ROUNDING)
    assert total.perplexity_increase == pytest.approx(1, rel=ROUNDING)


def test_figures_equal_those_of_torch() -> None:
    reference, model, targets = random_logits(0), random_logits(1), np.array([3, 0, 10, 5, 5])
    figures = summarize([compare(reference, model, targets=targets)])
    r, q = (torch.from_numpy(logits).double() for logits in (reference, model))
    kl = torch.nn.functional.kl_div(q.log_softmax(-1), r.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    losses = [torch.nn.functional.cross_entropy(each, torch.from_numpy(targets)).exp().item() for each in (r, q)]
    assert figures.kl is not None
    assert figures.perplexity is not None
    assert dataclasses.astuple(figures.perplexity) == pytest.approx(losses, rel=ROUNDING)
    spread = [kl.mean(), kl.median(), kl.quantile(0.99), kl.max()]
    assert dataclasses.astuple(figures.kl) == pytest.approx([value.item() for value in spread], rel=ROUNDING)
    assert figures.top1_agreement == (r.argmax(-1) == q.argmax(-1)).double().mean().item()
    assert figures.cosine == pytest.approx(torch.cosine_similarity(r, q).mean().item(), rel=ROUNDING)
    assert figures.sqnr_db == pytest.approx(10 * math.log10(r.square().sum() / (r - q).square().sum()), rel=ROUNDING)


def test_equal_logits_have_no_divergence_at_all() -> None:
    logits = random_logits(2, rows=200, size=301)
    figures = summarize([compare(logits, logits.copy(), targets=np.zeros(200, np.int64))])
    assert figures.kl is not None
    assert dataclasses.astuple(figures.kl) == (0, 0, 0, 0)
    assert (figures.top1_agreement, figures.cosine, figures.least_cosine) == (1, 1, 1)
    assert figures.sqnr_db == math.inf
    assert figures.perplexity_increase == 0


def test_a_constant_added_to_all_logits_changes_no_distribution() -> None:
    logits = np.arange(12, dtype=np.float32).reshape(3, 4)
    figures = compare(logits, logits + 8, targets=np.zeros(3, np.int64))  # exact in float32
    assert figures.kl == (0, 0, 0)
    assert figures.loss is not None
    assert figures.loss[0] == figures.loss[1]
    assert figures.noise == 12 * 64


@pytest.mark.parametrize("chunk", [1, 11, 30, 10**6])
def test_pieces_change_nothing_but_rounding(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, model, targets = random_logits(3), random_logits(4), np.array([1, 2, 3, 4, 5])
    whole = compare(reference, model, targets=targets)
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    pieces = compare(reference, model, targets=targets)
    assert pieces.kl == whole.kl
    assert (pieces.agreeing, pieces.rows, pieces.least_cosine) == (whole.agreeing, whole.rows, whole.least_cosine)
    assert (pieces.signal, pieces.noise) == pytest.approx((whole.signal, whole.noise), rel=ROUNDING)
    assert pieces.loss == pytest.approx(whole.loss, rel=ROUNDING)
    assert whole.loss is not None
    assert metrics.loss(reference, targets) == pytest.approx(whole.loss[0], rel=ROUNDING)


def test_windows_add_up_to_one_text() -> None:
    reference, model, targets = random_logits(5, 6), random_logits(6, 6), np.arange(6)
    whole = summarize([compare(reference, model, targets=targets)])
    parts = [slice(0, 1), slice(1, 4), slice(4, 6)]
    split = summarize([compare(reference[part], model[part], targets=targets[part]) for part in parts])
    assert split.predictions == whole.predictions == 6
    assert split.kl is not None
    assert whole.kl is not None
    assert dataclasses.astuple(split.kl) == pytest.approx(dataclasses.astuple(whole.kl), rel=ROUNDING)
    assert split.sqnr_db == pytest.approx(whole.sqnr_db, rel=ROUNDING)
    assert split.perplexity_increase == pytest.approx(whole.perplexity_increase, rel=ROUNDING)


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[3e38, -3e38, 0]], np.float32)
    figures = summarize([compare(logits, -logits, targets=np.array([0]))])
    assert figures.kl is not None
    assert figures.kl.max == pytest.approx(6e38, rel=2**-23)  # 3e38 is rounded to float32
    assert figures.perplexity is not None
    assert (figures.perplexity.reference, figures.perplexity.quantized) == (1, math.inf)
    assert figures.cosine == -1


def test_embeddings_have_cosine_and_noise_alone() -> None:
    figures = compare(np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]]), logits=False)
    assert (figures.cosines, figures.signal, figures.noise) == (24 / 25, 25, 2)
    assert (figures.agreeing, figures.kl, figures.loss) == (None, (), None)
    total = summarize([figures])
    assert (total.perplexity, total.kl, total.top1_agreement) == (None, None, None)


def test_zero_vectors_are_like_each_other_and_like_nothing_else() -> None:
    zero, one = np.zeros((1, 2)), np.ones((1, 2))
    assert compare(zero, zero, logits=False).cosines == 1
    assert compare(zero, one, logits=False).cosines == 0
    assert summarize([compare(zero, one, logits=False)]).sqnr_db == -math.inf


def test_figures_of_a_window_survive_json_exactly() -> None:
    figures = compare(random_logits(7), random_logits(8), targets=np.arange(5))
    assert WindowFigures.from_dict(json.loads(json.dumps(dataclasses.asdict(figures)))) == figures
    bare = compare(random_logits(7), random_logits(8), logits=False)
    assert WindowFigures.from_dict(json.loads(json.dumps(dataclasses.asdict(bare)))) == bare
