"""Engines: arrays of dot-product units with quantizers, a vector unit, SRAM and DRAM, from data files."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mxcompile.cost.data_files import Status, build, find_file, read_toml
from mxcompile.errors import CostModelError
from mxcompile.formats import FORMATS

BUFFER_ENERGY: Final = "buffer_energy_pj_per_byte"
SRAM_ENERGY: Final = "sram_energy_pj_per_byte"
DRAM_ENERGY: Final = "dram_energy_pj_per_byte"
VECTOR_ENERGY: Final = "vector_energy_pj_per_op"

ON_CHIP: Final = (BUFFER_ENERGY, SRAM_ENERGY, VECTOR_ENERGY)
"""Constants that belong to a node; a DRAM is another chip, whatever node the engine has."""

FLOATS: Final = ("float64", "float32", "float16", "bfloat16")
"""Operands that are not quantized."""

_PARTS: Final = ("engine", "array", "float_array", "quantizers", "vector", "buffer", "sram", "dram")


@dataclasses.dataclass(frozen=True)
class Constant:
    """A figure with its origin.

    Attributes:
        name: BUFFER_ENERGY, SRAM_ENERGY, DRAM_ENERGY or VECTOR_ENERGY.
        value: In the unit that the name ends with.
        status: Where it comes from.
        source: The publication, or the reason for an assumption.
        node_nm: The node that it holds for; None for DRAM.
    """

    name: str
    value: float
    status: Status
    source: str
    node_nm: float | None = None


@dataclasses.dataclass(frozen=True)
class Array:
    """Rows times columns of units, each of which keeps one output until it is done (output stationary)."""

    rows: int
    columns: int

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.rows * self.columns


@dataclasses.dataclass(frozen=True)
class Engine:
    """An engine.

    Attributes:
        name: Such as ``edge-npu``.
        description: What it stands for, in a line.
        status: Where its sizes come from.
        source: Why these.
        float_bits: Bits in which floating-point numbers are kept: 16, or 32 for those of the model.
        array: The units of every quantized pair of formats.
        float_array: The units for products of floating-point operands.
        quantizers: Quantizer units of every format.
        vector_lanes: Scalar operations a clock outside the arrays.
        buffer_bytes: Memory at the array for the operand that is held while the other one passes.
        sram_bytes: On-chip memory for operands and activations.
        dram_bandwidth_bytes_per_s: Of the memory outside.
        dram_technology: Its kind, in words.
        clock_hz: None for the technology's clock.
        units: Units that are used in place of the usual ones, by format (``amxfp4``), by pair
            (``mxfp8_e4m3 x mxfp4``, activations first) or by quantizer (``quantize_dint4``).
        constants: Energies.
    """

    name: str
    description: str
    status: Status
    source: str
    float_bits: int
    array: Array
    float_array: Array
    quantizers: int
    vector_lanes: int
    buffer_bytes: int
    sram_bytes: int
    dram_bandwidth_bytes_per_s: float
    dram_technology: str
    clock_hz: float | None
    units: Mapping[str, str]
    constants: tuple[Constant, ...]

    def constant(self, name: str, node_nm: float) -> Constant | None:
        """The constant of that name for a node; None where the engine states none, which no other node stands for."""
        for constant in self.constants:
            if constant.name == name and (name not in ON_CHIP or constant.node_nm == node_nm):
                return constant
        return None

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything, as JSON-ready values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class _Head:
    name: str
    description: str
    status: Status
    source: str
    float_bits: int = 16
    clock_hz: float | None = None


@dataclasses.dataclass(frozen=True)
class _Quantizers:
    count: int


@dataclasses.dataclass(frozen=True)
class _Vector:
    lanes: int


@dataclasses.dataclass(frozen=True)
class _Memory:
    bytes: int


@dataclasses.dataclass(frozen=True)
class _Dram:
    bandwidth_bytes_per_s: float
    technology: str


def load_engine(name: str) -> Engine:
    """The engine of a file.

    Args:
        name: Of a shipped one, or the path of a .toml file; docs/cost-model.md tells its tables and keys.

    Raises:
        CostModelError: No such file, an unknown or missing key, or a value that cannot be.
    """
    path = find_file("engine", name)
    content = read_toml(path, (*_PARTS, "units", "constant"))
    for part in _PARTS:
        if part not in content and part != "float_array":
            raise CostModelError(f"{path}: has no table [{part}]; add it")
    head = build(_Head, f"{path}: [engine]", content["engine"])
    dram = build(_Dram, f"{path}: [dram]", content["dram"])
    engine = Engine(
        name=head.name,
        description=head.description,
        status=head.status,
        source=head.source,
        float_bits=head.float_bits,
        array=build(Array, f"{path}: [array]", content["array"]),
        float_array=build(Array, f"{path}: [float_array]", content.get("float_array", content["array"])),
        quantizers=build(_Quantizers, f"{path}: [quantizers]", content["quantizers"]).count,
        vector_lanes=build(_Vector, f"{path}: [vector]", content["vector"]).lanes,
        buffer_bytes=build(_Memory, f"{path}: [buffer]", content["buffer"]).bytes,
        sram_bytes=build(_Memory, f"{path}: [sram]", content["sram"]).bytes,
        dram_bandwidth_bytes_per_s=dram.bandwidth_bytes_per_s,
        dram_technology=dram.technology,
        clock_hz=head.clock_hz,
        units=_unit_names(path, content.get("units", {})),
        constants=tuple(_constants(path, content.get("constant", ()))),
    )
    _check_sizes(path, engine)
    return engine


def _unit_names(path: Path, values: Any) -> dict[str, str]:
    if not isinstance(values, Mapping) or not all(isinstance(value, str) for value in values.values()):
        raise CostModelError(f"{path}: [units]: is {values!r}; names of units by format are expected")
    for key in values:
        for name in key.removeprefix("quantize_").split(" x "):
            if name not in FORMATS and name not in FLOATS:
                raise CostModelError(
                    f"{path}: [units]: unknown key {key!r}; allowed are a format, a pair of formats such as "
                    f"'mxfp8_e4m3 x mxfp4' (activations first), and quantize_FORMAT; formats are "
                    f"{', '.join((*FORMATS, *FLOATS))}"
                )
    return dict(values)


def _constants(path: Path, rows: Any) -> list[Constant]:
    found: list[Constant] = []
    for index, row in enumerate(rows, start=1):
        where = f"{path}: [[constant]] {index}"
        constant = build(Constant, where, row)
        if constant.name not in (*ON_CHIP, DRAM_ENERGY):
            known = ", ".join((*ON_CHIP, DRAM_ENERGY))
            raise CostModelError(f"{where}: unknown constant {constant.name!r}; allowed are {known}")
        if (constant.name in ON_CHIP) != (constant.node_nm is not None):
            wanted = "state the node_nm that it holds for" if constant.name in ON_CHIP else "leave node_nm out"
            raise CostModelError(f"{where}: {constant.name}: {wanted}")
        if any((constant.name, constant.node_nm) == (other.name, other.node_nm) for other in found):
            raise CostModelError(f"{where}: {constant.name} stands there twice for the same node; leave one out")
        found.append(constant)
    return found


def _check_sizes(path: Path, engine: Engine) -> None:
    sizes = {
        "[array]: rows": engine.array.rows,
        "[array]: columns": engine.array.columns,
        "[float_array]: rows": engine.float_array.rows,
        "[float_array]: columns": engine.float_array.columns,
        "[quantizers]: count": engine.quantizers,
        "[vector]: lanes": engine.vector_lanes,
        "[buffer]: bytes": engine.buffer_bytes,
        "[sram]: bytes": engine.sram_bytes,
        "[dram]: bandwidth_bytes_per_s": engine.dram_bandwidth_bytes_per_s,
        "[engine]: clock_hz": 1 if engine.clock_hz is None else engine.clock_hz,
    }
    if engine.float_bits not in (16, 32):
        raise CostModelError(f"{path}: [engine]: float_bits is {engine.float_bits}; allowed are 16 and 32")
    for where, value in sizes.items():
        if not value:
            raise CostModelError(f"{path}: {where}: is 0; it must be above 0")
