"""How far two outputs are apart: figures of one window, and of all of them.

Everything is computed in float64 from float32 logits, and sums over windows are exact (`math.fsum`), so that neither
the order nor the number of threads of this part can change a digit.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mxcompile.evaluation.models import Array

Float64 = npt.NDArray[np.float64]

CHUNK: Final = 2**16
"""Logits that are turned to float64 at a time: 512 kB, all that a window needs beside its float32 logits. More no
longer fits a core's own cache, and took four times as long."""

_LARGEST_LOSS = 709.0  # Nats; exp of more is no float64.


@dataclasses.dataclass(frozen=True)
class WindowFigures:
    """What one window adds to the figures.

    Attributes:
        agreeing: Rows of logits with the same largest element; None for embeddings.
        kl: Divergence of each row in nats; empty for embeddings.
        cosines: Sum of the cosines of the rows.
        least_cosine: The least of them.
        rows: Rows that were compared.
        signal: Sum of squares of the reference.
        noise: Sum of squares of the difference.
        loss: Sums of the negative log-likelihoods of the next tokens, of reference and model; None where no token
            follows.
    """

    agreeing: int | None
    kl: tuple[float, ...]
    cosines: float
    least_cosine: float
    rows: int
    signal: float
    noise: float
    loss: tuple[float, float] | None

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "WindowFigures":
        """The inverse of `dataclasses.asdict`, by way of JSON."""
        loss = content["loss"]
        return cls(**{**content, "kl": tuple(content["kl"]), "loss": loss and tuple(loss)})


def compare(
    reference: Array, model: Array, *, targets: npt.NDArray[np.int64] | None = None, logits: bool = True
) -> WindowFigures:
    """Compares the outputs of one window.

    Args:
        reference: float ``[rows, size]``, logits or an embedding.
        model: The same of the other model.
        targets: The token that follows each row, int64 ``[rows]``; None where none does.
        logits: Whether rows are logits.
    """
    kl: list[float] = []
    parts: list[tuple[float, float]] = []
    losses: list[tuple[float, float]] = []
    cosines: list[float] = []
    agreeing = 0
    for rows in _chunks(*reference.shape):
        r, q = reference[rows].astype(np.float64), model[rows].astype(np.float64)
        difference = q - r
        parts.append((float(np.sum(r * r)), float(np.sum(difference * difference))))
        cosines += _cosines(r, q).tolist()
        if not logits:
            continue
        agreeing += int(np.count_nonzero(r.argmax(axis=-1) == q.argmax(axis=-1)))
        r, q = log_softmax(r), log_softmax(q)
        kl += divergences(r, q).tolist()
        if targets is not None:
            losses.append((-float(_taken(r, targets[rows]).sum()), -float(_taken(q, targets[rows]).sum())))
    return WindowFigures(
        agreeing=agreeing if logits else None,
        kl=tuple(kl),
        cosines=math.fsum(cosines),
        least_cosine=min(cosines),
        rows=len(cosines),
        signal=math.fsum(signal for signal, _ in parts),
        noise=math.fsum(noise for _, noise in parts),
        loss=(math.fsum(r for r, _ in losses), math.fsum(q for _, q in losses)) if losses else None,
    )


def _chunks(rows: int, size: int) -> Iterator[slice]:
    """The rows in pieces of at most `CHUNK` elements, at least one row each."""
    step = max(1, CHUNK // size)
    return (slice(start, start + step) for start in range(0, rows, step))


def log_softmax(logits: Float64) -> Float64:
    """Logarithms of the probabilities, over the last axis: float64 of the same shape."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Float64 = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def loss(logits: Array, targets: npt.NDArray[np.int64]) -> float:
    """Negative log-likelihood of the targets, summed: nats.

    Args:
        logits: float ``[rows, vocabulary]``.
        targets: The token that follows each row, int64 ``[rows]``.
    """
    parts = (
        -float(_taken(log_softmax(logits[rows].astype(np.float64)), targets[rows]).sum())
        for rows in _chunks(*logits.shape)
    )
    return math.fsum(parts)


def divergences(reference: Float64, model: Float64) -> Float64:
    """Kullback-Leibler divergence ``sum p (log p - log q)`` in nats of each row, p the reference.

    Args:
        reference: log p, float64 ``[rows, size]``.
        model: log q.

    Returns:
        float64 ``[rows]``; rounding cannot make it negative.
    """
    rows: Float64 = np.maximum((np.exp(reference) * (reference - model)).sum(axis=-1), 0)
    return rows


def _cosines(reference: Float64, model: Float64) -> Float64:
    """Cosine of each pair of rows; 1 of two zero vectors, 0 if only one is."""
    lengths = (reference * reference).sum(axis=-1), (model * model).sum(axis=-1)
    # The root of the product, not the product of the roots: it gives exactly 1 for equal rows.
    product = np.sqrt(lengths[0] * lengths[1])
    dots = (reference * model).sum(axis=-1)
    both_zero = ((lengths[0] == 0) & (lengths[1] == 0)).astype(np.float64)
    cosines: Float64 = np.where(product > 0, np.clip(dots / np.where(product > 0, product, 1), -1, 1), both_zero)
    return cosines


def _taken(rows: Float64, columns: npt.NDArray[np.int64]) -> Float64:
    return np.take_along_axis(rows, columns[:, np.newaxis], axis=-1)[:, 0]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A figure of both models."""

    reference: float
    quantized: float


@dataclasses.dataclass(frozen=True)
class Spread:
    """How a figure is distributed over tokens."""

    mean: float
    median: float
    p99: float
    max: float


@dataclasses.dataclass(frozen=True)
class Figures:
    """The figures of all windows; None where the kind of model has no such figure.

    Attributes:
        predictions: Rows that were compared: predictions of a next token, inputs of a classifier or an encoder.
        perplexity: Exponential of the mean negative log-likelihood of the next token.
        kl: Divergence of the distributions from the reference's, nats.
        top1_agreement: Share of rows whose likeliest element is the reference's.
        cosine: Mean cosine of logits or embeddings.
        least_cosine: The least cosine.
        sqnr_db: Power of the reference's output over that of the difference, decibels; infinite if there is none.
    """

    predictions: int
    perplexity: Pair | None
    kl: Spread | None
    top1_agreement: float | None
    cosine: float
    least_cosine: float
    sqnr_db: float

    @property
    def perplexity_increase(self) -> float | None:
        """Share by which the perplexity grows."""
        return None if self.perplexity is None else self.perplexity.quantized / self.perplexity.reference - 1


def summarize(windows: Sequence[WindowFigures]) -> Figures:
    """The figures of all windows, at least one."""
    rows = sum(window.rows for window in windows)
    losses = [window.loss for window in windows if window.loss is not None]
    agreeing = [window.agreeing for window in windows if window.agreeing is not None]
    kl = np.array([value for window in windows for value in window.kl])
    signal, noise = (math.fsum(getattr(window, name) for window in windows) for name in ("signal", "noise"))
    return Figures(
        predictions=rows,
        perplexity=Pair(*(perplexity([loss[index] for loss in losses], rows) for index in (0, 1))) if losses else None,
        kl=_spread(kl) if kl.size else None,
        top1_agreement=sum(agreeing) / rows if agreeing else None,
        cosine=math.fsum(window.cosines for window in windows) / rows,
        least_cosine=min(window.least_cosine for window in windows),
        sqnr_db=sqnr(signal, noise),
    )


def sqnr(signal: float, noise: float) -> float:
    """Ratio of two powers in decibels: infinite without noise, minus infinite of noise without signal."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def perplexity(losses: Sequence[float], predictions: int) -> float:
    """Exponential of the mean of negative log-likelihoods; infinite where that is no float64."""
    mean = math.fsum(losses) / predictions
    return math.exp(mean) if mean < _LARGEST_LOSS else math.inf


def _spread(values: Float64) -> Spread:
    median, p99 = np.quantile(values, (0.5, 0.99))
    return Spread(math.fsum(values) / len(values), float(median), float(p99), float(values.max()))
