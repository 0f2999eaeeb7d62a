"""Greedy generation of both models from the same prompts, compared token by token (the view of the QDPO paper).

Source: Lee et al., ACL 2024 (arXiv 2407.03051): quantization flips a token where the two likeliest are close, and what
follows goes another way. Counting, prompts and lengths are this project's.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mxcompile import generation
from mxcompile.evaluation.data import Samples, real_tokens
from mxcompile.evaluation.models import EvalModel


@dataclasses.dataclass(frozen=True)
class PromptFigures:
    """The continuations of one prompt.

    Attributes:
        reference: Tokens of the reference; the end token, if it came, is the last one.
        quantized: Tokens of the model.
    """

    reference: tuple[int, ...]
    quantized: tuple[int, ...]

    @property
    def compared(self) -> int:
        """Positions that are compared: those of the longer continuation."""
        return max(len(self.reference), len(self.quantized))

    @property
    def flips(self) -> int:
        """Positions at which the tokens differ; one that only one of them has differs."""
        same = sum(a == b for a, b in zip(self.reference, self.quantized, strict=False))
        return self.compared - same

    @property
    def first_flip(self) -> int | None:
        """The first such position, 0 for the first generated token; None if there is none."""
        pairs = zip(self.reference, self.quantized, strict=False)
        differing = (index for index, (a, b) in enumerate(pairs) if a != b)
        shorter = min(len(self.reference), len(self.quantized))
        return next(differing, None if shorter == self.compared else shorter)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "PromptFigures":
        """The inverse of `dataclasses.asdict`, by way of JSON."""
        return cls(tuple(content["reference"]), tuple(content["quantized"]))


@dataclasses.dataclass(frozen=True)
class Flips:
    """How greedy texts differ.

    Attributes:
        rate: Share of the generated positions at which the tokens differ.
        prompts: Number of prompts.
        flipped_prompts: Prompts whose continuations differ at all.
        median_first_flip: Median over all prompts of the position of the first flip; None unless more than half do.
        first_flips: The position for each prompt, 0 for the first generated token; None where there is none.
        new_tokens: Positions that were compared, of all prompts.
    """

    rate: float
    prompts: int
    flipped_prompts: int
    median_first_flip: int | None
    first_flips: tuple[int | None, ...]
    new_tokens: int


def summarize_flips(prompts: Sequence[PromptFigures]) -> Flips:
    """The figures of all prompts, at least one."""
    firsts = tuple(prompt.first_flip for prompt in prompts)
    compared = sum(prompt.compared for prompt in prompts)
    ordered = sorted(float("inf") if first is None else first for first in firsts)
    middle = statistics.median_high(ordered)
    return Flips(
        rate=sum(prompt.flips for prompt in prompts) / compared,
        prompts=len(prompts),
        flipped_prompts=sum(first is not None for first in firsts),
        median_first_flip=None if middle == float("inf") else int(middle),
        first_flips=firsts,
        new_tokens=compared,
    )


def prompt_tokens(samples: Samples, prompts: int, new_tokens: int) -> Iterator[tuple[list[int], int]]:
    """Prompts from samples that are evenly spaced: the first half of each, and how many tokens to add.

    At most so many tokens are added that the whole is no longer than the sample, which every model takes.

    Args:
        samples: Token samples.
        prompts: Number of prompts; fewer samples give fewer.
        new_tokens: At most so many tokens are added.
    """
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(prompts, len(samples))).round().astype(int))
    for index in chosen:
        ids = real_tokens(samples[int(index)]).tolist()
        half = len(ids) // 2
        if half:
            yield ids[:half], min(new_tokens, len(ids) - half)


def continuations(model: EvalModel, reference: EvalModel, prompt: Sequence[int], new_tokens: int) -> PromptFigures:
    """Continues a prompt with both models, each on its own text."""
    ends = model.end_tokens or reference.end_tokens
    texts = (tuple(_greedy(each, prompt, new_tokens, ends)) for each in (reference, model))
    return PromptFigures(*texts)


def _greedy(model: EvalModel, prompt: Sequence[int], new_tokens: int, ends: frozenset[int]) -> Iterator[int]:
    """The likeliest token each time, up to an end token, that included."""
    cache = generation.Cache(model.session, model.name)
    fed = prompt
    for _ in range(new_tokens):
        token = int(np.argmax(cache.step(fed)))
        yield token
        if token in ends:
            return
        fed = [token]
