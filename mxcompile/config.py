"""What to compile to: the settings that the passes see, validated once."""

import dataclasses
from typing import Literal, Self, get_args

from mxcompile.errors import ConfigError
from mxcompile.formats import NONE, get_format

KvBlocking = Literal["sequence", "token"]
KvCache = Literal["packed", "float"]


@dataclasses.dataclass(frozen=True)
class CompileConfig:
    """Formats and their choice per layer; every name is checked on construction.

    Attributes:
        weights: Format of the weights, or ``none`` to quantize only layers named in `overrides`.
        activations: Format of the activations, or ``none`` to leave them as they are (weight-only).
        include: Globs over layer names; if there are any, only matching layers are quantized.
        exclude: Globs over layer names that are left alone.
        overrides: ``(glob, weights, activations)``; stronger than `include` and `exclude`, the last match wins.
        fuse: Whether matmuls become MatMulBlock; otherwise QuantizeBlock and DequantizeBlock stay around MatMul.
        attention: Format of the queries and of the attention probabilities; ``none`` leaves them as they are.
        keys: Format of the keys; ``none`` leaves the product of queries and keys alone.
        values: Format of the values; ``none`` leaves the product of probabilities and values alone.
        kv_blocking: What the blocks of values run along: the ``sequence``, over which the product reduces, or the
            features of a ``token``.
        kv_cache: Whether a decoder's key-value cache holds ``packed`` codes and scales, where formats and graph allow
            it, or ``float`` numbers.

    Raises:
        FormatError: An unknown format name or block size.
        ConfigError: Activations are quantized, but weights nowhere; or settings that do not go together.
    """

    weights: str
    activations: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overrides: tuple[tuple[str, str, str], ...] = ()
    fuse: bool = True
    attention: str = NONE
    keys: str = NONE
    values: str = NONE
    kv_blocking: KvBlocking = "sequence"
    kv_cache: KvCache = "float"

    def __post_init__(self) -> None:
        pairs = [(self.weights, self.activations), *(override[1:] for override in self.overrides)]
        for name in [*(name for pair in pairs for name in pair), self.attention, self.keys, self.values]:
            if name != NONE:
                get_format(name)
        for weights, activations in pairs:
            if weights == NONE and activations != NONE:
                raise ConfigError(
                    f"weights none with activations {activations}: only layers with quantized weights are compiled; "
                    "set both to none, or give the weights a format"
                )
        if all(weights == NONE for weights, _ in pairs):
            raise ConfigError("weights are none everywhere: nothing to quantize; choose --format or --weights")
        for option, value, known in (
            ("--kv-blocking", self.kv_blocking, get_args(KvBlocking)),
            ("--kv-cache", self.kv_cache, get_args(KvCache)),
        ):
            if value not in known:
                raise ConfigError(f"{option} is {value!r}; allowed are {' and '.join(known)}")

    @classmethod
    def of(
        cls,
        format: str = "amxfp4",
        *,
        weights: str | None = None,
        activations: str | None = None,
        include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (),
        overrides: tuple[tuple[str, str, str], ...] = (),
        fuse: bool = True,
        attention: bool = True,
        attention_format: str | None = None,
        kv_format: str | None = None,
        kv_blocking: KvBlocking = "sequence",
        kv_cache: KvCache | None = None,
    ) -> Self:
        """The settings of ``--format``: it sets weights and activations, which may be given singly too.

        1. Activations go with the weights, unless they are given: to the same format, to int8 with integer weights, to
           ``none`` with weights of ``none``.
        2. The attention products take the activations' format on both sides; values take the weights' where these are
           paired with such activations (dint4: queries, keys and probabilities int8, values dint4: W4A8V4).
        3. ``attention_format`` stands for all four operands, ``kv_format`` for keys and values. ``attention=False``
           leaves the products alone.
        4. ``kv_cache=None`` packs it if the formats allow that.
        """
        if weights is None:
            weights = format
        elif activations is None and weights != NONE:
            activations = paired_activations(format)
        if activations is None:
            activations = paired_activations(weights)
        if not attention and (attention_format is not None or kv_format is not None):
            raise ConfigError(
                "a format for attention or its cache was given with --no-attention; leave one of them out"
            )
        queries = (attention_format or activations) if attention else NONE
        keys = kv_format or queries
        values = kv_format or (
            weights if attention_format is None and paired_activations(weights) == queries else queries
        )
        if kv_cache is None:
            kv_cache = "float" if cache_obstacle(keys, values, kv_blocking) else "packed"
        elif kv_cache == "packed" and (obstacle := cache_obstacle(keys, values, kv_blocking)):
            raise ConfigError(
                f"--kv-cache packed is not possible: {obstacle}; choose --kv-cache float or another --kv-format"
            )
        return cls(
            weights,
            activations,
            include,
            exclude,
            overrides,
            fuse,
            attention=queries,
            keys=keys,
            values=values,
            kv_blocking=kv_blocking,
            kv_cache=kv_cache,
        )

    @property
    def format(self) -> str:
        """The formats in one word: ``amxfp4``, or ``weights/activations`` where they differ."""
        return self.weights if self.weights == self.activations else f"{self.weights}/{self.activations}"


def paired_activations(weights: str) -> str:
    """The activations' format that goes with a format of weights by default."""
    return NONE if weights == NONE else get_format(weights).paired_activations


def cache_obstacle(keys: str, values: str, kv_blocking: str) -> str:
    """Why a cache of keys and values in these formats cannot be packed, in words; empty if it can.

    Tokens are added to a packed cache without encoding the older ones again. Values along the sequence in a format
    with a scale a row get one for each block of tokens (`mxcompile.passes.pack_cache`).
    """
    if keys == values == NONE:
        return "no attention product is quantized"
    for operand, name, grows in (("keys", keys, False), ("values", values, kv_blocking == "sequence")):
        if name == NONE:
            continue
        fmt = get_format(name)
        if fmt.per_tensor:
            return f"{operand} in {name} share a scale over all tokens"
        if grows and fmt.block_size and not fmt.grows:
            return f"blocks of {operand} in {name} depend on how many tokens follow"
    return ""
