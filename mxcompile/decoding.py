"""From logits to text: choosing a token, and turning tokens into text as they come."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer  # type: ignore[import-untyped]

from mxcompile.errors import ConfigError

Float32 = npt.NDArray[np.float32]

_REPLACEMENT = "\ufffd"
_PATIENCE = 16  # Tokens without a whole character among them before they count as garbage.
_LONGEST_PART = 3  # Bytes, and so tokens at most, of a UTF-8 sequence that lacks its end.


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token (greedy).
        top_k: Only this many of the likeliest tokens are drawn from; None for all.
        top_p: Only the fewest likeliest tokens whose probabilities sum to at least this are drawn from; None for all.
        seed: Of NumPy's default generator; the same seed gives the same text.

    Raises:
        ConfigError: A value out of range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(f"temperature is {self.temperature}: 0 (greedy) or a positive number is allowed")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top-k is {self.top_k}: at least 1 is allowed")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top-p is {self.top_p}: above 0 and up to 1 is allowed")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: 0 and above is allowed")

    def candidates(self, logits: Float32) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The tokens to draw from, likeliest first, and their probabilities.

        Args:
            logits: float32 ``[vocabulary]``; equal ones are in order of their token.
        """
        if self.temperature == 0:
            return np.array([np.argmax(logits)]), np.ones(1)
        order = np.argsort(-logits, kind="stable")[: self.top_k]
        exponents = (logits[order].astype(np.float64) - float(logits[order[0]])) / self.temperature
        probabilities = np.exp(exponents)
        probabilities /= probabilities.sum()
        if self.top_p is not None:
            # A token stays if those before it do not reach top_p: the one that crosses it stays too.
            before = np.cumsum(probabilities) - probabilities
            kept = before < self.top_p
            order, probabilities = order[kept], probabilities[kept] / probabilities[kept].sum()
        return order, probabilities

    def choose(self, logits: Float32, rng: np.random.Generator) -> int:
        """One token for logits float32 ``[vocabulary]``."""
        tokens, probabilities = self.candidates(logits)
        return int(tokens[0] if len(tokens) == 1 else rng.choice(tokens, p=probabilities))


class StreamDecoder:
    """Turns tokens into text one by one: what comes out, joined, is the text of all of them after the context.

    A token alone may be part of a character, and decoders treat the first one of a text in their own way. So each
    token is decoded together with those of the piece before it, and the difference is given out, save for replacement
    characters at the end, which more tokens may complete. The cost of a token is bounded: after 16 tokens
    without a whole character the replacement characters are given out as what they are.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        """Args: tokenizer, and the context: tokens of the text to continue, which is not given out again."""
        self._tokenizer = tokenizer
        self._window = list(context)
        self._sent = len(self._decode(self._window))
        self._pending = 0

    def push(self, token: int) -> str:
        """Takes a token; gives the text that is certain now, often empty."""
        if not self._decode([token]) and self._tokenizer.decode([token], skip_special_tokens=False):
            return ""  # A special token is no text.
        self._window.append(token)
        self._pending += 1
        text = self._decode(self._window)
        held = len(text) - len(text.rstrip(_REPLACEMENT))
        if self._pending >= _PATIENCE:
            held = min(held, 1)  # Decoders give one for a sequence that lacks its end.
        piece = text[self._sent : len(text) - held]
        self._sent += len(piece)
        if (piece and not held) or self._pending >= _PATIENCE:
            self._window = self._window[-(_LONGEST_PART if held else self._pending) :]
            self._sent = len(self._decode(self._window)) - held
            self._pending = 0
        return piece

    def finish(self) -> str:
        """Gives what was held back; the end of the text."""
        return self._decode(self._window)[self._sent :]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text
