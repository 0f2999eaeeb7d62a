"""How figures of the cost model are written for people: short numbers with units, and names of things."""

from collections.abc import Mapping
from typing import Any, Final

PREFIXES: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SMALL: Final = ((1e12, ""), (1e9, "m"), (1e6, "u"), (1e3, "n"), (1.0, "p"))
"""What a number of pico-units is called, from 1e12 of them on."""

LABELS: Final[Mapping[str, str]] = {
    "mac": "MAC array",
    "quantize": "quantizers",
    "vector": "vector unit",
    "buffer": "operand buffers",
    "sram": "SRAM",
    "dram": "DRAM",
    "leakage": "leakage",
}
"""What the parts of an energy are called."""


def count(value: float) -> str:
    """A number of things, such as ``1.23 M``."""
    for scale, prefix in PREFIXES:
        if abs(value) >= scale:
            return f"{value / scale:.3g} {prefix}"
    return f"{value:.3g}"


def number_of(value: float, unit: str) -> str:
    """Things of a unit: ``1.23 MB``, ``512 B``."""
    text = count(value)
    return f"{text}{unit}" if text[-1].isalpha() else f"{text} {unit}"


def energy(pj: float | None) -> str:
    """An energy given in pJ; ``not stated`` if it is None."""
    if pj is None:
        return "not stated"
    for scale, prefix in SMALL:
        if abs(pj) >= scale:
            return f"{pj / scale:.3g} {prefix}J"
    return f"{pj:.3g} pJ"


def time(us: float) -> str:
    """A time given in us."""
    for scale, unit in ((1e6, "s"), (1e3, "ms"), (1.0, "us")):
        if us >= scale:
            return f"{us / scale:.3g} {unit}"
    return f"{1e3 * us:.3g} ns"


def area(um2: float | None) -> str:
    """An area given in um2."""
    if um2 is None:
        return "not stated"
    return f"{um2 / 1e6:.3g} mm2" if um2 >= 1e5 else f"{um2:.0f} um2"


def percent(share: float | None) -> str:
    """A share; ``-`` if it is None."""
    if share is None:
        return "-"
    return f"{100 * share:.1f}%" if share >= 0.001 or not share else "<0.1%"


def ratio(value: float | None) -> str:
    """A ratio."""
    return "-" if value is None else f"{value:.2f}x"


def sizes(dims: Mapping[str, Any]) -> str:
    """The dimensions of a run in a line."""
    return ", ".join(f"{name} {size}" for name, size in dims.items()) or "all sizes fixed"


def formats(a_format: str, b_format: str) -> str:
    """The formats of a product: once if both are the same."""
    return a_format if a_format == b_format else f"{a_format} x {b_format}"
