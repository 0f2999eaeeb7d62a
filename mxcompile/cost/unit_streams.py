"""The operand streams of a unit as bits of its ports, and what it must answer to them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mxcompile.cost import rtl_reference, rtl_reference_wide, stimuli
from mxcompile.cost.rtl_units import LANES, RtlUnit
from mxcompile.cost.stimuli import Choice, Operands, Product
from mxcompile.formats import get_format

Bits = npt.NDArray[np.bool_]

_RANDOM_SEED: Final = 7


@dataclasses.dataclass(frozen=True)
class Streams:
    """What goes into a unit and what comes out.

    Attributes:
        inputs: Numbers at each clock, by port: integers ``[streams, clocks, parts]``, the first part in the lowest
            bits of the port.
        expected: The same of output ports, for the operands of that clock.
    """

    inputs: Mapping[str, npt.NDArray[Any]]
    expected: Mapping[str, npt.NDArray[Any]]


def model_streams(unit: RtlUnit, products: Sequence[Product], choice: Choice) -> Streams:
    """Streams of operands that the model multiplies, or of activations that it quantizes."""
    if unit.kind == "quantize":
        return _quantizer_streams(unit, products, choice)
    return _dot_streams(unit, *stimuli.operands(products, choice, unit.a_format, unit.b_format), choice.clear)


def random_streams(unit: RtlUnit, products: Sequence[Product], choice: Choice) -> Streams:
    """Streams of uniform random codes, with the model's scales in random order; of normally distributed activations."""
    if unit.kind == "quantize":
        shape = choice.block.shape
        numbers = np.random.default_rng(_RANDOM_SEED).standard_normal((shape[0], shape[1] * LANES)).astype(np.float32)
        zeros = np.zeros(shape, np.int64)
        each = Choice(zeros, zeros + np.arange(shape[0])[:, None], zeros, zeros + np.arange(shape[1]))
        return _quantizer_streams(unit, [Product("random", numbers, numbers[:1])], each)
    a, b = stimuli.operands(products, choice, unit.a_format, unit.b_format)
    a = stimuli.random_operands(unit.a_format, a, _RANDOM_SEED)
    b = stimuli.random_operands(unit.b_format, b, _RANDOM_SEED + 1)
    return _dot_streams(unit, a, b, choice.clear)


def port_bits(values: npt.NDArray[Any], width: int) -> Bits:
    """Numbers ``[streams, clocks, parts]`` as the bits of a port, bool ``[clocks, streams, width]``."""
    part = width // values.shape[-1]
    bits = (values[..., None].astype(np.uint64) >> np.arange(part, dtype=np.uint64)) & np.uint64(1)
    return np.swapaxes(bits.astype(np.bool_).reshape(*values.shape[:2], width), 0, 1)


def _dot_streams(unit: RtlUnit, a: Operands, b: Operands, clear: Bits) -> Streams:
    wide = unit.name not in rtl_reference.BLOCKS
    reference = rtl_reference_wide.reference if wide else rtl_reference.reference
    y = [reference(unit.name, *operands) for operands in zip(a.codes, b.codes, a.scales, b.scales, clear, strict=True)]
    inputs = {"a": a.codes, "b": b.codes, "a_scale": a.scales, "b_scale": b.scales, "clear": clear[..., None]}
    return Streams({name: values for name, values in inputs.items() if values.shape[-1]}, {"y": np.array(y)[..., None]})


def _quantizer_streams(unit: RtlUnit, products: Sequence[Product], choice: Choice) -> Streams:
    halves = [Product(p.name, p.a.astype(np.float16).astype(np.float32), p.b) for p in products]
    inputs: dict[str, npt.NDArray[Any]] = {"x": stimuli.activations(halves, choice)}
    found, _ = stimuli.operands(halves, choice, unit.a_format, unit.a_format)
    expected: dict[str, npt.NDArray[Any]] = {"codes": found.codes, "scales": found.scales}
    if unit.a_format == "nvfp4":
        inputs["tensor_scale"] = _row_bytes(unit.a_format, halves, choice, slice(0, 4))
    if unit.a_format == "int8":
        inputs["scale"] = _row_bytes(unit.a_format, halves, choice, slice(0, 4))
        inputs["zero"] = _row_bytes(unit.a_format, halves, choice, slice(4, 5))
        inputs["clear"] = choice.clear[..., None].astype(np.uint8)
        del expected["scales"]
    return Streams(inputs, expected)


def _row_bytes(name: str, products: Sequence[Product], choice: Choice, which: slice) -> npt.NDArray[np.uint8]:
    """Some of the bytes that stand at the beginning of a row's scales, at each clock."""
    found = np.zeros((*choice.row.shape, which.stop - which.start), np.uint8)
    for number in np.unique(choice.product).tolist():
        _, scales = get_format(name).encode_rows(products[number].a)
        where = choice.product == number
        found[where] = scales.reshape(len(scales), -1)[choice.row[where], which]
    return found
