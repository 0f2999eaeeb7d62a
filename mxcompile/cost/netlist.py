"""A netlist of library cells: read from yosys' JSON, simulated with many operand streams at once, toggles counted.

Simulation is exact and without delays: between two clock edges each net takes its final value, so that a toggle is a
change from one clock to the next (glitches are not in it). 64 streams share a machine word; each is a sequence of
operands of its own, so that registers with feedback (accumulators) need no special case.
"""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mxcompile.cost.liberty import Cell, Library
from mxcompile.cost.liberty_syntax import LibertyError, evaluate

Nets = npt.NDArray[np.intp]
Words = npt.NDArray[np.uint64]

CONSTANTS: Final = {"0": 0, "1": 1, "x": 0}
"""The nets of constants; an undefined bit is a zero."""

WORD: Final = 64
"""Streams in a machine word."""


@dataclasses.dataclass(frozen=True)
class Gates:
    """Cells of one kind that can be evaluated together.

    Attributes:
        cell: The library cell.
        pins: Net of each cell's pin, ``[cells]``, by the pin's name; unconnected outputs have a net of their own.
    """

    cell: Cell
    pins: Mapping[str, Nets]

    def __len__(self) -> int:
        """The number of cells."""
        return len(next(iter(self.pins.values())))


@dataclasses.dataclass(frozen=True)
class Netlist:
    """A synthesized unit with one clock.

    Attributes:
        nets: The number of nets; 0 and 1 are the constants.
        inputs: Nets of each input port, lowest bit first; without the clock.
        outputs: Nets of each output port.
        gates: Combinational cells in the order of evaluation.
        flip_flops: Flip-flops.
    """

    nets: int
    inputs: Mapping[str, Nets]
    outputs: Mapping[str, Nets]
    gates: tuple[Gates, ...]
    flip_flops: tuple[Gates, ...]

    @property
    def area_um2(self) -> float:
        """Area of all cells."""
        return self.sequential_area_um2 + sum(group.cell.area_um2 * len(group) for group in self.gates)

    @property
    def sequential_area_um2(self) -> float:
        """Area of the flip-flops."""
        return sum(group.cell.area_um2 * len(group) for group in self.flip_flops)

    @property
    def leakage_uw(self) -> float:
        """Leakage power, the mean over each cell's states."""
        return sum(group.cell.leakage_nw * len(group) for group in (*self.gates, *self.flip_flops)) / 1e3

    def loads_ff(self) -> npt.NDArray[np.float64]:
        """Capacitance of the input pins at each net, fF, float64 ``[nets]``; clock pins and wires are not in it."""
        loads = np.zeros(self.nets)
        for group in (*self.gates, *self.flip_flops):
            for name, nets in group.pins.items():
                pin = group.cell.pins[name]
                if not pin.output and name != group.cell.clock:
                    np.add.at(loads, nets, pin.capacitance_ff)
        return loads


@dataclasses.dataclass(frozen=True)
class Trace:
    """What a simulation gave.

    Attributes:
        outputs: Each output port at each clock, bool ``[clocks, streams, width]``: before the clock's edge.
        toggles: Changes of each net from clock to clock, over all streams, int64 ``[nets]``.
        clocks: Clocks times streams in which toggles were counted.
    """

    outputs: Mapping[str, npt.NDArray[np.bool_]]
    toggles: npt.NDArray[np.int64]
    clocks: int


def read_netlist(path: Path, top: str, library: Library) -> Netlist:
    """Reads what yosys' ``write_json`` wrote of a flat, mapped module.

    Raises:
        LibertyError: A cell is not of the library, or a flip-flop is not one of plain D kind with the one clock.
    """
    module = json.loads(path.read_text("utf-8"))["modules"][top]
    numbers = _Numbers()
    ports = {name: (port["direction"], numbers.nets(port["bits"])) for name, port in sorted(module["ports"].items())}
    instances: dict[str, list[dict[str, int]]] = defaultdict(list)
    for name, instance in sorted(module["cells"].items()):
        if instance["type"] not in library.cells:
            raise LibertyError(
                f"cell {name} of {top} is a {instance['type']}, which {library.name} does not have: it was not mapped"
            )
        instances[instance["type"]].append(_connect(library.cells[instance["type"]], instance["connections"], numbers))
    flip_flops: list[Gates] = []
    gates: list[Gates] = []
    for kind, connections in sorted(instances.items()):
        cell = library.cells[kind]
        (flip_flops if cell.state else gates).append(_group(cell, connections))
    clocks = {int(net) for group in flip_flops for net in group.pins.get(group.cell.clock, ())}
    if len(clocks) > 1 or any(not group.cell.clock for group in flip_flops):
        raise LibertyError(
            f"{top} has {len(clocks)} clocks or flip-flops with set or reset: one rising edge is allowed"
        )
    return Netlist(
        nets=numbers.count,
        inputs={k: v for k, (way, v) in ports.items() if way == "input" and not set(map(int, v)) & clocks},
        outputs={k: v for k, (way, v) in ports.items() if way == "output"},
        gates=_ordered(gates, top),
        flip_flops=tuple(flip_flops),
    )


def simulate(netlist: Netlist, inputs: Mapping[str, npt.NDArray[np.bool_]], *, skip: int) -> Trace:
    """Clocks a netlist through operand streams, from all registers at zero.

    Args:
        netlist: The unit.
        inputs: Each input port's bits, bool ``[clocks, streams, width]``, lowest first. Streams are a multiple of 64.
        skip: So many clocks at the beginning count no toggles: the pipeline fills.
    """
    clocks, streams = next(iter(inputs.values())).shape[:2]
    missing = netlist.inputs.keys() ^ inputs.keys()
    if missing or streams % WORD:
        raise ValueError(f"ports {sorted(missing)} without a match, or {streams} streams: not a multiple of {WORD}")
    words = {name: _pack(bits) for name, bits in inputs.items()}
    values = np.zeros((netlist.nets, streams // WORD), np.uint64)
    values[1] = ~np.uint64(0)
    states = [np.zeros((len(group), streams // WORD), np.uint64) for group in netlist.flip_flops]
    toggles = np.zeros(netlist.nets, np.int64)
    outputs: dict[str, list[Words]] = {name: [] for name in netlist.outputs}
    for clock in range(clocks):
        before = values.copy()
        for name, bits in words.items():
            values[netlist.inputs[name]] = bits[clock]
        _settle(netlist, values, states)
        if clock > skip:
            toggles += np.bitwise_count(values ^ before).sum(axis=1, dtype=np.int64)
        for name, nets in netlist.outputs.items():
            outputs[name].append(values[nets])
        states = [_next_state(group, values) for group in netlist.flip_flops]
    return Trace(
        {name: _unpack(np.stack(bits)) for name, bits in outputs.items()},
        toggles,
        max(clocks - skip - 1, 0) * streams,
    )


def _settle(netlist: Netlist, values: Words, states: Sequence[Words]) -> None:
    """Gives every net its final value after a clock edge."""
    for group, state in zip(netlist.flip_flops, states, strict=True):
        known = dict(zip(group.cell.state, (state, ~state), strict=False))
        _drive(group, known, values)
    for group in netlist.gates:
        known = {name: values[nets] for name, nets in group.pins.items() if not group.cell.pins[name].output}
        _drive(group, known, values)


def _drive(group: Gates, known: Mapping[str, Words], values: Words) -> None:
    for pin in group.cell.outputs:
        assert pin.function is not None
        values[group.pins[pin.name]] = evaluate(pin.function, known)


def _next_state(group: Gates, values: Words) -> Words:
    assert group.cell.next_state is not None
    return evaluate(group.cell.next_state, {name: values[nets] for name, nets in group.pins.items()})


def _pack(bits: npt.NDArray[np.bool_]) -> Words:
    """Bool ``[clocks, streams, width]`` -> uint64 ``[clocks, width, streams / 64]``."""
    packed = np.packbits(np.moveaxis(bits, 1, 2), axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64)


def _unpack(words: Words) -> npt.NDArray[np.bool_]:
    """The inverse of `_pack`."""
    bits = np.unpackbits(np.ascontiguousarray(words, "<u8").view(np.uint8), axis=-1, bitorder="little")
    return np.moveaxis(bits, 2, 1).astype(np.bool_)


class _Numbers:
    """Yosys' bits as consecutive net numbers."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}
        self.count = len(set(CONSTANTS.values()))

    def nets(self, bits: Iterable[Any]) -> Nets:
        return np.array([CONSTANTS[bit] if isinstance(bit, str) else self._number(bit) for bit in bits], np.intp)

    def _number(self, bit: int) -> int:
        if bit not in self.known:
            self.known[bit] = self.new()
        return self.known[bit]

    def new(self) -> int:
        self.count += 1
        return self.count - 1


def _connect(cell: Cell, connections: Mapping[str, list[Any]], numbers: _Numbers) -> dict[str, int]:
    """The net of every pin of a cell."""
    return {
        name: int(numbers.nets(connections[name])[0]) if connections.get(name) else numbers.new() if pin.output else 0
        for name, pin in cell.pins.items()
    }


def _group(cell: Cell, connections: Sequence[Mapping[str, int]]) -> Gates:
    return Gates(cell, {name: np.array([each[name] for each in connections], np.intp) for name in cell.pins})


def _ordered(gates: Sequence[Gates], top: str) -> tuple[Gates, ...]:
    """The gates in groups of one kind and one distance from registers and ports, nearest first."""
    driver: dict[int, tuple[int, int]] = {}
    sources: dict[tuple[int, int], list[int]] = {}
    for index, group in enumerate(gates):
        for name, nets in group.pins.items():
            for number, net in enumerate(nets.tolist()):
                if group.cell.pins[name].output:
                    driver[net] = (index, number)
                else:
                    sources.setdefault((index, number), []).append(net)
    level: dict[tuple[int, int], int] = {}
    waiting = {gate: {driver[net] for net in nets if net in driver} for gate, nets in sources.items()}
    followers: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for gate, before in waiting.items():
        for each in before:
            followers[each].append(gate)
    ready = [gate for gate, before in waiting.items() if not before]
    while ready:
        gate = ready.pop()
        level[gate] = max((level[driver[net]] + 1 for net in sources[gate] if net in driver), default=0)
        for each in followers[gate]:
            waiting[each].discard(gate)
            if not waiting[each]:
                ready.append(each)
    if len(level) < len(sources):
        raise LibertyError(f"{top} has a combinational loop through {len(sources) - len(level)} cells")
    members: dict[tuple[int, int], list[int]] = defaultdict(list)
    for (index, number), depth in level.items():
        members[depth, index].append(number)
    return tuple(
        Gates(gates[index].cell, {name: nets[sorted(numbers)] for name, nets in gates[index].pins.items()})
        for (_, index), numbers in sorted(members.items())
    )
