"""Reads what energy and timing need from a Liberty file: areas, capacitances, functions, power and delay tables.

Liberty is the text format in which a cell library is described; this reads the part that both libraries of
`mxcompile.cost.characterize` use: table lookup models, one voltage, rising-edge flip-flops. Units are converted on
reading: ns, fF, fJ, nW, um2.

Source: Liberty User Guides and Reference Manual, version 2017.06, chapter 3 (energy in internal_power tables is in
``capacitive_load_unit * voltage_unit**2``).
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mxcompile.cost.liberty_syntax import Expression, Group, LibertyError, parse, parse_expression

Float64 = npt.NDArray[np.float64]
_TIME_NS: Final = {"ns": 1.0, "ps": 1e-3}
_LOAD_FF: Final = {"ff": 1.0, "pf": 1e3}
_LEAKAGE_NW: Final = {"nw": 1.0, "uw": 1e3, "pw": 1e-3}


@dataclasses.dataclass(frozen=True)
class Table:
    """Values over input slew (ns) and output load (fF); an axis of one point does not matter.

    Attributes:
        slews: float64 ``[s]``, ascending.
        loads: float64 ``[l]``, ascending.
        values: float64 ``[s, l]``: ns or fJ.
    """

    slews: Float64
    loads: Float64
    values: Float64

    def at(self, slew: npt.ArrayLike, load: npt.ArrayLike) -> Float64:
        """Bilinear interpolation; beyond the table the value at its edge."""
        low_s, high_s, s = _position(self.slews, slew)
        low_l, high_l, t = _position(self.loads, load)
        low = self.values[low_s, low_l] * (1 - t) + self.values[low_s, high_l] * t
        high = self.values[high_s, low_l] * (1 - t) + self.values[high_s, high_l] * t
        found: Float64 = low * (1 - s) + high * s
        return found


@dataclasses.dataclass(frozen=True)
class Power:
    """Internal energy of a rising and of a falling edge, fJ; of an output caused by ``related``, or of an input."""

    related: str
    when: Expression | None
    rise: Table
    fall: Table


@dataclasses.dataclass(frozen=True)
class Timing:
    """Delay and slew of an output's edges, ns, or the setup time before a clock edge.

    Attributes:
        related: The input pin.
        sense: ``positive_unate``, ``negative_unate`` or ``non_unate``.
        kind: ``combinational``, ``rising_edge``, ``setup_rising``.
        tables: By Liberty's name: ``cell_rise``, ``cell_fall``, ``rise_transition``, ``fall_transition``,
            ``rise_constraint``, ``fall_constraint``.
    """

    related: str
    sense: str
    kind: str
    tables: Mapping[str, Table]


@dataclasses.dataclass(frozen=True)
class Pin:
    """A pin: capacitance in fF as an input; function and tables as an output."""

    name: str
    output: bool
    capacitance_ff: float
    function: Expression | None
    powers: tuple[Power, ...]
    timings: tuple[Timing, ...]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        name: Its name.
        area_um2: Its area.
        leakage_nw: Its leakage power.
        pins: By name.
        clock: The clock pin of a rising-edge flip-flop; empty for combinational cells.
        state: The names of a flip-flop's state and of its inverse in output functions.
        next_state: What a flip-flop takes over.
    """

    name: str
    area_um2: float
    leakage_nw: float
    pins: Mapping[str, Pin]
    clock: str
    state: tuple[str, ...]
    next_state: Expression | None

    @property
    def outputs(self) -> tuple[Pin, ...]:
        """The output pins."""
        return tuple(pin for pin in self.pins.values() if pin.output)


@dataclasses.dataclass(frozen=True)
class Library:
    """A cell library at one corner."""

    name: str
    voltage_v: float
    temperature_c: float
    cells: Mapping[str, Cell]


def read_library(path: Path) -> Library:
    """Reads a Liberty file.

    Raises:
        LibertyError: The file is not Liberty, or has other units or models than the known ones.
    """
    try:
        root = parse(path.read_text("utf-8", errors="replace"))
    except OSError as error:
        raise LibertyError(f"{path}: cannot be read: {error.strerror}") from error
    if root.kind != "library":
        raise LibertyError(f"{path}: begins with a group {root.kind!r}; a Liberty file begins with library (...)")
    units = _units(root, path)
    templates = {group.arguments[0]: group for kind in _TEMPLATES for group in root.all(kind)}
    cells = (_cell(group, templates, units) for group in root.all("cell"))
    return Library(
        name=root.arguments[0],
        voltage_v=float(root.text("nom_voltage")),
        temperature_c=float(root.text("nom_temperature")),
        cells={cell.name: cell for cell in cells},
    )


_TEMPLATES: Final = ("lu_table_template", "power_lut_template")
_NOTHING: Final = Table(np.zeros(1), np.zeros(1), np.zeros((1, 1)))
_LOAD_AXES: Final = ("total_output_net_capacitance", "constrained_pin_transition")
"""What a table's second axis is here: the load, or, of setup times, the slew of the data."""


@dataclasses.dataclass(frozen=True)
class _Units:
    time_ns: float
    load_ff: float
    energy_fj: float
    leakage_nw: float


def _units(root: Group, path: Path) -> _Units:
    time = re.fullmatch(r"1\s*(ns|ps)", root.text("time_unit").lower())
    leakage = re.fullmatch(r"1\s*(nw|uw|pw)", root.text("leakage_power_unit").lower())
    load = root.attributes.get("capacitive_load_unit", ("", ""))
    if not time or not leakage or len(load) != 2 or load[1].lower() not in _LOAD_FF:
        raise LibertyError(f"{path}: units are missing or unknown; known are 1ns, 1ps; 1nW, 1uW, 1pW; ff, pf")
    if root.text("voltage_unit").lower().replace(" ", "") != "1v":
        raise LibertyError(f"{path}: voltage_unit is {root.text('voltage_unit')!r}; it must be 1V")
    load_ff = float(load[0]) * _LOAD_FF[load[1].lower()]
    return _Units(_TIME_NS[time.group(1)], load_ff, load_ff, _LEAKAGE_NW[leakage.group(1)])


def _cell(group: Group, templates: Mapping[str, Group], units: _Units) -> Cell:
    pins = (_pin(pin, templates, units) for pin in group.all("pin"))
    flip_flop = next(group.all("ff"), None)
    plain = flip_flop if flip_flop and _is_plain(flip_flop) else None
    return Cell(
        name=group.arguments[0],
        area_um2=float(group.text("area", "0")),
        leakage_nw=float(group.text("cell_leakage_power", "0")) * units.leakage_nw,
        pins={pin.name: pin for pin in pins},
        clock=plain.text("clocked_on") if plain else "",
        state=flip_flop.arguments if flip_flop else (),
        next_state=parse_expression(plain.text("next_state")) if plain else None,
    )


def _is_plain(flip_flop: Group) -> bool:
    """Whether a flip-flop has a rising clock edge, and neither set nor reset."""
    return flip_flop.text("clocked_on").isidentifier() and not {"clear", "preset"} & set(flip_flop.attributes)


def _pin(group: Group, templates: Mapping[str, Group], units: _Units) -> Pin:
    function = group.text("function")
    powers = [
        Power(
            power.text("related_pin"),
            parse_expression(power.text("when")) if power.text("when") else None,
            *(
                _table(found, templates, units.time_ns, units.load_ff, units.energy_fj) if found else _NOTHING
                for found in (next(power.all("rise_power"), None), next(power.all("fall_power"), None))
            ),
        )
        for power in group.all("internal_power")
    ]
    timings = [
        Timing(
            timing.text("related_pin"),
            timing.text("timing_sense", "non_unate"),
            timing.text("timing_type", "combinational"),
            {t.kind: _table(t, templates, units.time_ns, units.load_ff, units.time_ns) for t in timing.groups},
        )
        for timing in group.all("timing")
    ]
    return Pin(
        name=group.arguments[0],
        output=group.text("direction") == "output",
        capacitance_ff=float(group.text("capacitance", "0")) * units.load_ff,
        function=parse_expression(function) if function else None,
        powers=tuple(powers),
        timings=tuple(timings),
    )


def _table(group: Group, templates: Mapping[str, Group], time: float, load: float, value: float) -> Table:
    """A table with slews first, whatever order its template has."""
    template = templates.get(group.arguments[0] if group.arguments else "")
    values = np.array([_numbers(row) for row in group.attributes["values"]])
    axes = {}
    for index in ("1", "2"):
        if template and template.text(f"variable_{index}"):
            points = group.attributes.get(f"index_{index}") or template.attributes[f"index_{index}"]
            axes[template.text(f"variable_{index}")] = np.array(_numbers(points[0]))
    slews = [points for variable, points in axes.items() if variable not in _LOAD_AXES]
    loads = [points for variable, points in axes.items() if variable in _LOAD_AXES]
    one = np.zeros(1)
    if axes and next(iter(axes)) in _LOAD_AXES:
        values = values.reshape(-1, len(slews[0]) if slews else 1).T
    constrained = "constrained_pin_transition" in axes
    return Table(
        slews[0] * time if slews else one,
        loads[0] * (time if constrained else load) if loads else one,
        values.reshape(len(slews[0]) if slews else 1, -1) * value,
    )


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.split(r"[,\s]+", text.strip().strip(",")) if number]


def _position(axis: Float64, where: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Float64]:
    """The two points around, and how far between them: 0 to 1."""
    inside = np.clip(np.asarray(where, np.float64), axis[0], axis[-1])
    high = np.clip(np.searchsorted(axis, inside), min(1, len(axis) - 1), len(axis) - 1)
    low = np.maximum(high - 1, 0)
    width = np.where(high > low, axis[high] - axis[low], 1.0)
    return low, high, (inside - axis[low]) / width
