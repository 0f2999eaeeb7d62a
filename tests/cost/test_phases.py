"""Which runs are estimated, and with which sizes."""

import pytest

from mxcompile.cost.phases import Phase, choose_phases
from mxcompile.errors import CostModelError

DECODER = ("batch_size", "sequence_length", "past_sequence_length")
SEQ2SEQ = ("batch_size", "encoder_sequence_length", "decoder_sequence_length", "past_decoder_sequence_length")


def test_a_decoder_gets_a_prefill_and_a_step_of_128_by_default() -> None:
    assert choose_phases(DECODER) == [
        Phase("prefill", {"batch_size": 1, "sequence_length": 128, "past_sequence_length": 0}, 128),
        Phase("decode", {"batch_size": 1, "sequence_length": 1, "past_sequence_length": 128}, 1),
    ]


def test_tokens_are_those_of_all_sequences() -> None:
    assert [phase.tokens for phase in choose_phases(DECODER, batch=4, prefill=10, decode=7)] == [40, 4]


def test_only_what_is_asked_for_is_estimated() -> None:
    (prefill,) = choose_phases(DECODER, prefill=10)
    assert (prefill.name, prefill.dims["sequence_length"]) == ("prefill", 10)
    (decode,) = choose_phases(DECODER, decode=0)
    assert (decode.name, decode.dims["past_sequence_length"]) == ("decode", 0)


def test_a_model_without_a_cache_runs_once() -> None:
    assert choose_phases(DECODER[:2], batch=2) == [Phase("run", {"batch_size": 2, "sequence_length": 128}, 256)]
    assert choose_phases(DECODER[:2], prefill=5) == [Phase("prefill", {"batch_size": 1, "sequence_length": 5}, 5)]


def test_given_lengths_are_one_run() -> None:
    dims = {"sequence_length": 3, "past_sequence_length": 9}
    assert choose_phases(DECODER, dims=dims) == [Phase("run", {"batch_size": 1, **dims}, 3)]


def test_other_dimensions_join_every_run() -> None:
    prefill, decode = choose_phases(SEQ2SEQ, dims={"encoder_sequence_length": 77})
    assert (prefill.dims["decoder_sequence_length"], decode.dims["past_decoder_sequence_length"]) == (128, 128)
    assert prefill.dims["encoder_sequence_length"] == decode.dims["encoder_sequence_length"] == 77


def test_images_are_counted_as_samples() -> None:
    symbols = ("image_batch_size", "height")
    assert choose_phases(symbols, batch=3, dims={"height": 32}) == [
        Phase("run", {"image_batch_size": 3, "height": 32}, 3)
    ]


def test_a_model_of_fixed_sizes_is_one_sample() -> None:
    assert choose_phases(()) == [Phase("run", {}, 1)]


@pytest.mark.parametrize(
    ("symbols", "settings", "message"),
    [
        (DECODER, {"dims": {"seq": 1}}, "no dimension 'seq'; its dimensions are batch_size, past_sequence_length"),
        ((), {"dims": {"seq": 1}}, "none: all its sizes are fixed"),
        (DECODER[:2], {"decode": 5}, "--decode: the model has no dimension of cached tokens"),
        (("batch_size",), {"prefill": 5}, "--prefill: the model has no dimension of tokens"),
    ],
)
def test_sizes_that_the_model_does_not_have_are_an_error(symbols, settings, message) -> None:
    with pytest.raises(CostModelError, match=message):
        choose_phases(symbols, **settings)
