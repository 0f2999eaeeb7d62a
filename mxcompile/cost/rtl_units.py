"""The units of rtl/*.v that are characterized: what they multiply or quantize, and how they are built."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from mxcompile.errors import CostModelError

RTL: Final = Path(__file__).parent / "rtl"
LANES: Final = 32


@dataclasses.dataclass(frozen=True)
class RtlUnit:
    """A unit.

    Attributes:
        name: Of the module and its file.
        kind: ``dot`` multiplies 32 pairs of codes a clock and accumulates; ``quantize`` makes 32 codes a clock.
        a_format: Format of the first operand, or of the codes that a quantizer makes.
        b_format: Format of the second operand; empty for a quantizer.
        architecture: How it is built, in words.
    """

    name: str
    kind: Literal["dot", "quantize"]
    a_format: str
    b_format: str
    architecture: str

    @property
    def sources(self) -> tuple[Path, ...]:
        """Its Verilog file and those of the modules in it."""
        return tuple(sorted(_sources(RTL / f"{self.name}.v")))

    @property
    def latency_cycles(self) -> int:
        """Clocks from the operands to the result, as the head comment of its file says."""
        path = RTL / f"{self.name}.v"
        found = re.search(r"^// LATENCY = (\d+)$", path.read_text("utf-8"), re.MULTILINE)
        if not found:
            raise CostModelError(f"{path}: has no line '// LATENCY = n'; add it")
        return int(found[1])

    @property
    def sha256(self) -> str:
        """Digest of its Verilog files, without comments and with single spaces: of what is synthesized."""
        return digest({path.name: " ".join(code(path).split()) for path in self.sources})


def digest(texts: Mapping[str, str]) -> str:
    """SHA-256 of named texts, in their order."""
    found = hashlib.sha256()
    for name, text in texts.items():
        content = text.encode()
        found.update(f"{name} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


def code(path: Path) -> str:
    """A Verilog file without its comments."""
    return re.sub(r"//.*", "", path.read_text("utf-8"))


def _sources(path: Path) -> set[Path]:
    """A file, and those in which the modules that it names are defined, and so on."""
    codes = {each: code(each) for each in (path, *RTL.glob("lib_*.v"))}
    defined = {name: each for each, text in codes.items() for name in re.findall(r"^module (\w+)", text, re.MULTILINE)}
    found, waiting = {path}, [path]
    while waiting:
        used = {defined[name] for name in re.findall(r"^\s*(lib_\w+)", codes[waiting.pop()], re.MULTILINE)}
        waiting += used - found
        found |= used
    return found


def _dot(name: str, architecture: str, a_format: str = "", b_format: str = "") -> RtlUnit:
    return RtlUnit(name, "dot", a_format or name, b_format or a_format or name, architecture)


def _quantize(name: str, architecture: str) -> RtlUnit:
    return RtlUnit(f"quantize_{name}", "quantize", name, "", architecture)


_ALIGNED: Final = "products aligned to the largest exponent of the block"
_EXACT: Final = "exact integer products of the significands, moved by their exponents"

UNITS: Final = (
    _dot("int8_int8", "unsigned partial products in one tree, int32; zero points outside", "int8"),
    _dot("int4_int8", "unsigned partial products in one tree, int32; zero points outside", "int8", "int4"),
    _dot("dint4_int8", "half steps as a fifth bit, one tree, int32; zero points of sums outside", "int8", "dint4"),
    _dot("int4_int4", "unsigned partial products in one tree, int32; zero points outside", "int4"),
    _dot("fp16", _ALIGNED, "float16"),
    _dot("mxint8", "signed products, one tree"),
    _dot("mxfp8_e4m3", _EXACT),
    _dot("mxfp8_e5m2", _ALIGNED),
    _dot("mxfp6_e2m3", _EXACT),
    _dot("mxfp6_e3m2", _EXACT),
    _dot("mxfp4", "2x2-bit products moved by their exponents, one tree"),
    _dot("nvfp4", "two trees of 16 lanes, scaled and aligned"),
    _dot("fp4_e5m2", "one tree, scaled; the symmetric twin of amxfp4"),
    _dot("amxfp4_four_trees", "a tree for each class of signs", "amxfp4"),
    _dot("amxfp4_tagged", "pairs of lanes added before four trees", "amxfp4"),
    _dot("amxfp4_mean_difference", "four signed sums of the same products", "amxfp4"),
    _dot("amxfp4_per_product", "every product scaled by itself, one tree", "amxfp4"),
    _dot("amxfp4_synced", "scales with one mantissa: products moved, one tree", "amxfp4_synced"),
    _dot("amxfp4_pot", "power-of-two scales: products moved, one tree"),
    _quantize("amxfp4", "comparisons with multiples of the scales, no divider"),
    _quantize("amxfp4_pot", "exponents subtracted, elements rounded"),
    _quantize("mxfp4", "exponents subtracted, elements rounded"),
    _quantize("mxfp6_e2m3", "exponents subtracted, elements rounded"),
    _quantize("mxfp6_e3m2", "exponents subtracted, elements rounded"),
    _quantize("mxfp8_e4m3", "exponents subtracted, elements rounded"),
    _quantize("mxfp8_e5m2", "exponents subtracted, elements rounded"),
    _quantize("mxint8", "exponents subtracted, elements rounded"),
    _quantize("nvfp4", "scales and elements by comparisons; the tensor's scale is given"),
    _quantize("int8", "exact division; the row's scale and zero point are given"),
)
"""Every unit that is characterized."""
