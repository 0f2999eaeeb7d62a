"""Which runs of a model are estimated: a prefill, a step of decoding, or a single run; and the sizes of each."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Final

from mxcompile.errors import CostModelError

TOKENS: Final = ("sequence_length", "decoder_sequence_length", "encoder_sequence_length")
"""Names of the dimension of new tokens, as optimum's exporter gives them; the first one that the model has counts."""

PAST: Final = ("past_sequence_length", "past_decoder_sequence_length")
"""Names of the dimension of the cache."""

BATCH: Final = "batch_size"
"""What a batch dimension's name ends with."""

DEFAULT_TOKENS: Final = 128
"""Tokens of a prefill, and in the cache of a step, if nobody says how many."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """One run to estimate.

    Attributes:
        name: ``prefill``, ``decode``, or ``run`` where the model has no cache or the sizes are given one by one.
        dims: The model's symbolic dimensions.
        tokens: New tokens of all sequences together; sequences where the model has no tokens.
    """

    name: str
    dims: Mapping[str, int]
    tokens: int


def choose_phases(
    symbols: Collection[str],
    *,
    batch: int = 1,
    prefill: int | None = None,
    decode: int | None = None,
    dims: Mapping[str, int] | None = None,
) -> list[Phase]:
    """The runs that the settings ask for.

    1. ``prefill`` is a run over so many tokens with an empty cache, ``decode`` one over a single token with so many in
       the cache. Without either, a model with a cache gets both with DEFAULT_TOKENS, another one a run over
       DEFAULT_TOKENS.
    2. Where ``dims`` gives the number of tokens, there is one run with the sizes as they are given.

    Args:
        symbols: The model's dimensions.
        batch: Size of every dimension whose name ends with BATCH.
        prefill: Tokens of a prefill.
        decode: Tokens in the cache of a step.
        dims: Any dimensions by name; they win.

    Raises:
        CostModelError: A name that is no dimension of the model, or a decode of a model without a cache.
    """
    given = dict(dims or {})
    for name in given:
        if name not in symbols:
            known = ", ".join(sorted(symbols)) or "none: all its sizes are fixed"
            raise CostModelError(f"the model has no dimension {name!r}; its dimensions are {known}")
    new = next((name for name in TOKENS if name in symbols), None)
    past = next((name for name in PAST if name in symbols), None)
    if decode is not None and past is None:
        raise CostModelError("--decode: the model has no dimension of cached tokens; leave it out, or use --prefill")
    if prefill is not None and new is None:
        raise CostModelError("--prefill: the model has no dimension of tokens; give its sizes with --dim NAME=NUMBER")
    sizes = {name: batch for name in symbols if name.endswith(BATCH)}
    single = prefill is None and decode is None and (past is None or new in given or past in given)
    if single:
        lengths: dict[str, dict[str | None, int]] = {"run": {new: DEFAULT_TOKENS} if past is None else {}}
    else:
        both = prefill is None and decode is None
        lengths = {}
        if prefill is not None or both:
            lengths["prefill"] = {new: prefill or DEFAULT_TOKENS, past: 0}
        if decode is not None or both:
            lengths["decode"] = {new: 1, past: DEFAULT_TOKENS if decode is None else decode}
    return [
        _phase(name, {**sizes, **{k: v for k, v in more.items() if k}, **given}, new) for name, more in lengths.items()
    ]


def _phase(name: str, dims: dict[str, int], new: str | None) -> Phase:
    sequences = next((size for dim, size in dims.items() if dim.endswith(BATCH)), 1)
    return Phase(name, dims, sequences * dims.get(new or "", 1))
