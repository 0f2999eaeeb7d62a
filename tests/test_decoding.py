"""Choosing tokens, and their text as it comes."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import byte_tokenizer, fallback_tokenizer
from tokenizers import Tokenizer

from mxcompile.decoding import Sampling, StreamDecoder
from mxcompile.errors import ConfigError

# Choosing tokens -----------------------------------------------------------------------------------------------------

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=20).map(
    lambda values: np.array(values, np.float32)
)


def test_default_sampling_is_greedy() -> None:
    logits = np.array([0, 3, 3, 1], np.float32)
    assert Sampling().choose(logits, np.random.default_rng(0)) == 1


@given(LOGITS, st.integers(1, 25), st.floats(0.1, 5))
def test_top_k_keeps_the_k_largest_logits(logits: np.ndarray, k: int, temperature: float) -> None:
    tokens, probabilities = Sampling(temperature, top_k=k).candidates(logits)
    assert len(tokens) == len(set(tokens.tolist())) == min(k, len(logits))
    assert sorted(logits[tokens]) == sorted(logits)[-len(tokens) :]
    assert probabilities.sum() == pytest.approx(1)


@given(LOGITS, st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_tokens_that_reach_p(logits: np.ndarray, p: float) -> None:
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    shares = np.sort(exponentials / exponentials.sum())[::-1]
    tokens, probabilities = Sampling(1.0, top_p=p).candidates(logits)
    kept = len(tokens)
    rounding = len(logits) * 2.0**-52  # of sums of probabilities, in another order
    assert shares[: kept - 1].sum() < p + rounding
    assert kept == len(shares) or shares[:kept].sum() >= p - rounding
    assert np.all(np.diff(probabilities) <= 0)
    assert probabilities.sum() == pytest.approx(1)


def test_top_k_of_one_is_greedy_at_any_temperature() -> None:
    logits = np.array([0, 1, 5, 4], np.float32)
    rng = np.random.default_rng(0)
    assert {Sampling(100.0, top_k=1).choose(logits, rng) for _ in range(20)} == {2}


def test_drawn_tokens_have_their_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    draws, rng = 10_000, np.random.default_rng(0)
    counts = np.bincount([Sampling(1.0).choose(logits, rng) for _ in range(draws)], minlength=3)
    # Six standard deviations of a binomial count: one failure in 10**8 seeds, and the seed is fixed.
    assert np.all(np.abs(counts / draws - [0.5, 0.3, 0.2]) < 6 * np.sqrt(0.25 / draws))


def test_lower_temperature_prefers_the_likeliest() -> None:
    logits = np.array([1, 0], np.float32)
    first = [Sampling(temperature).candidates(logits)[1][0] for temperature in (0.1, 0.5, 1, 2)]
    assert first == sorted(first, reverse=True)


def test_masked_tokens_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0, -np.inf, 0], np.float32)
    rng = np.random.default_rng(0)
    assert {Sampling(1.0).choose(logits, rng) for _ in range(50)} == {1, 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0: 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top-k is 0: at least 1"),
        ({"top_p": 0.0}, "top-p is 0.0: above 0"),
        ({"top_p": 1.5}, "top-p is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_values_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**arguments)  # type: ignore[arg-type]


# Text as it comes ----------------------------------------------------------------------------------------------------


def streamed(tokenizer: Tokenizer, tokens: Sequence[int], context: Sequence[int] = ()) -> list[str]:
    """The pieces of the tokens, the last one from the end."""
    decoder = StreamDecoder(tokenizer, context)
    return [decoder.push(token) for token in tokens] + [decoder.finish()]


BYTES = byte_tokenizer()


def byte_tokens(data: bytes) -> list[int]:
    """The tokens of `byte_tokenizer` for any bytes, also such as no text encodes to."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    chars = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [BYTES.token_to_id(chars[byte]) for byte in data]


@given(st.text())
def test_streamed_text_is_the_whole_text(text: str) -> None:
    assert "".join(streamed(BYTES, BYTES.encode(text).ids)) == text


@given(st.text(alphabet="aé€😀👩‍👩‍👧"))
def test_no_character_is_split(text: str) -> None:
    assert all("\ufffd" not in piece for piece in streamed(BYTES, BYTES.encode(text).ids))


def test_a_character_comes_with_its_last_byte() -> None:
    assert streamed(BYTES, BYTES.encode("a€b").ids) == ["a", "", "", "€", "b", ""]


@settings(max_examples=300)
@given(st.lists(st.sampled_from([b"a", b"\xe2", b"\x82", b"\xac", b"\xf0", b"\x9f", b"\xff"]), max_size=60))
def test_streamed_garbage_is_what_decoding_it_at_once_gives(parts: list[bytes]) -> None:
    tokens = byte_tokens(b"".join(parts))
    assert "".join(streamed(BYTES, tokens)) == BYTES.decode(tokens)


@given(st.text(max_size=20), st.text(max_size=20))
def test_context_is_not_given_out_again(prompt: str, text: str) -> None:
    assert "".join(streamed(BYTES, BYTES.encode(text).ids, BYTES.encode(prompt).ids)) == text


def test_an_unfinished_character_comes_at_the_end() -> None:
    assert streamed(BYTES, byte_tokens(b"a\xe2\x82")) == ["a", "", "", "\ufffd"]


def test_garbage_is_not_held_back_forever() -> None:
    pieces = streamed(BYTES, byte_tokens(b"\xff" * 40))
    assert "".join(pieces[:20])
    assert "".join(pieces) == "\ufffd" * 40


def test_the_cost_of_a_token_is_bounded() -> None:
    longest = 0

    class Counting:
        def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
            nonlocal longest
            longest = max(longest, len(tokens))
            return BYTES.decode(tokens, skip_special_tokens=skip_special_tokens)

    streamed(Counting(), [*byte_tokens(b"\xff" * 500), *BYTES.encode("text" * 100).ids])  # type: ignore[arg-type]
    assert longest <= 32


def test_special_tokens_are_no_text() -> None:
    end = BYTES.token_to_id("<|end|>")
    euro = BYTES.encode("€").ids
    assert "".join(streamed(BYTES, [end, euro[0], end, *euro[1:], end])) == "€"


def test_a_space_before_a_word_is_kept() -> None:
    tokenizer = fallback_tokenizer()
    a, cat, s = (tokenizer.token_to_id(word) for word in ("▁a", "▁cat", "s"))
    assert streamed(tokenizer, [a, cat, s]) == ["a", " cat", "s", ""]
    assert streamed(tokenizer, [cat, s], context=[a]) == [" cat", "s", ""]


@given(st.text(alphabet="aé€😀 ", max_size=30))
def test_byte_fallback_streams_whole_characters(text: str) -> None:
    tokenizer = fallback_tokenizer()
    tokens = [tokenizer.token_to_id("▁cat"), *text.encode()]
    pieces = streamed(tokenizer, tokens)
    assert "".join(pieces) == tokenizer.decode(tokens) == "cat" + text
    assert all("\ufffd" not in piece for piece in pieces)
