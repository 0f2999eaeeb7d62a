"""What to compile to: the settings that the passes see, validated once."""

import dataclasses
from typing import Self

from mxcompile.errors import ConfigError
from mxcompile.formats import NONE, get_format


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

    Raises:
        FormatError: An unknown format name or block size.
        ConfigError: Activations are quantized, but weights nowhere.
    """

    weights: str
    activations: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overrides: tuple[tuple[str, str, str], ...] = ()
    fuse: bool = True

    def __post_init__(self) -> None:
        pairs = [(self.weights, self.activations), *(override[1:] for override in self.overrides)]
        for weights, activations in pairs:
            for name in (weights, activations):
                if name != NONE:
                    get_format(name)
            if weights == NONE and activations != NONE:
                raise ConfigError(
                    f"weights none with activations {activations}: only layers with quantized weights are compiled; "
                    "set both to none, or give the weights a format"
                )
        if all(weights == NONE for weights, _ in pairs):
            raise ConfigError("weights are none everywhere: nothing to quantize; choose --format or --weights")

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
    ) -> Self:
        """The settings of ``--format``: it sets weights and activations, which may be given singly too.

        Activations go with the weights, unless they are given: to the same format, to int8 with integer weights, to
        ``none`` with weights of ``none``.
        """
        if weights is None:
            weights = format
        elif activations is None and weights != NONE:
            activations = paired_activations(format)
        if activations is None:
            activations = paired_activations(weights)
        return cls(weights, activations, include, exclude, overrides, fuse)

    @property
    def format(self) -> str:
        """The formats in one word: ``amxfp4``, or ``weights/activations`` where they differ."""
        return self.weights if self.weights == self.activations else f"{self.weights}/{self.activations}"


def paired_activations(weights: str) -> str:
    """The activations' format that goes with a format of weights by default."""
    return NONE if weights == NONE else get_format(weights).paired_activations
