"""Energy of a simulated netlist from Liberty's tables and counted toggles.

For each clock of a unit, in fJ:

1. Nets: toggles times ``C V**2 / 2``, C being the capacitance of the input pins at the net. Wires are not in it.
2. Gates: toggles of each output times the mean of the cell's internal energies of a rising and a falling edge, over
   all related pins and conditions, at the net's load and the library's nominal slew.
3. Flip-flops: for every clock the capacitance of the clock pin, ``C V**2``, and the clock pin's internal energy of
   both edges under the conditions ``D = Q``. For a clock in which the state changes: the internal energies of the
   outputs (both, connected or not) and of the D pin while the clock is high, and the clock pin's energies under the
   conditions that then hold (``D != Q`` at the rising edge and, since D changes right after it, at the falling edge)
   in place of the first. Clock trees and clock gates are not in it.

Leakage is kept apart.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from mxcompile.cost.liberty import Cell, Pin, Power
from mxcompile.cost.liberty_syntax import evaluate
from mxcompile.cost.netlist import Gates, Netlist, Trace

Float64 = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Energy:
    """Mean energy of a clock by its origin, fJ.

    Attributes:
        nets_fj: Charging of input pins.
        gates_fj: Inside of combinational cells.
        clock_fj: What flip-flops take in every clock.
        states_fj: What flip-flops take when their state changes.
    """

    nets_fj: float
    gates_fj: float
    clock_fj: float
    states_fj: float

    @property
    def total_fj(self) -> float:
        """All together."""
        return self.nets_fj + self.gates_fj + self.clock_fj + self.states_fj


def energy(netlist: Netlist, trace: Trace, voltage_v: float, slew_ns: float) -> Energy:
    """The mean energy of a clock.

    Args:
        netlist: The unit.
        trace: Its simulation.
        voltage_v: The supply voltage of the library's corner.
        slew_ns: The nominal slew of all signals.
    """
    loads = netlist.loads_ff()
    rate = trace.toggles / trace.clocks
    gates = 0.0
    for group in netlist.gates:
        for pin in group.cell.outputs:
            nets = group.pins[pin.name]
            gates += float(rate[nets] @ _output_edge_fj(pin, loads[nets], slew_ns))
    clock = states = 0.0
    for group in netlist.flip_flops:
        pin = group.cell.pins[group.cell.clock]
        idle, changed = clock_pin_fj(group.cell, slew_ns)
        clock += len(group) * (pin.capacitance_ff * voltage_v**2 + idle)
        states += _states_fj(group, rate, loads, changed - idle, slew_ns)
    return Energy(float(rate @ loads) * voltage_v**2 / 2, gates, clock, states)


def clock_pin_fj(cell: Cell, slew_ns: float) -> tuple[float, float]:
    """Internal energy of a flip-flop's clock pin in a clock without and with a change of state, fJ.

    Both edges; the outputs' energies are not in it.
    """
    return _clock_pin_fj(cell, slew_ns, changes=False), _clock_pin_fj(cell, slew_ns, changes=True)


def _clock_pin_fj(cell: Cell, slew_ns: float, *, changes: bool) -> float:
    powers = cell.pins[cell.clock].powers
    holds = _conditions(cell, lambda values, state: values["D"] != state if changes else values["D"] == state)
    return _mean(powers, holds, lambda power: float(power.rise.at(slew_ns, 0) + power.fall.at(slew_ns, 0)))


def _states_fj(group: Gates, rate: Float64, loads: Float64, clock_fj: float, slew_ns: float) -> float:
    """Mean energy of a clock that these flip-flops' changes of state take beyond that of an idle clock."""
    cell = group.cell
    high = _conditions(cell, lambda values, _: values[cell.clock])
    found = 0.0
    for pin in cell.outputs:
        found += float(rate[group.pins[pin.name]] @ _output_edge_fj(pin, loads[group.pins[pin.name]], slew_ns))
    state = next(pin for pin in cell.outputs if pin.function == ("pin", cell.state[0]))
    changes = float(rate[group.pins[state.name]].sum())
    data = float(rate[group.pins["D"]].sum())
    edge = _mean(cell.pins["D"].powers, high, lambda power: float(_edge_fj(power, np.zeros(1), slew_ns)[0]))
    return found + changes * clock_fj + data * edge


def _output_edge_fj(pin: Pin, loads: Float64, slew_ns: float) -> Float64:
    """Internal energy of an edge of an output at each of these loads, fJ; 0 of cells that have none."""
    edges = [_edge_fj(power, loads, slew_ns) for power in pin.powers]
    found: Float64 = np.mean(edges, axis=0) if edges else np.zeros_like(loads)
    return found


def _edge_fj(power: Power, loads: Float64, slew_ns: float) -> Float64:
    found: Float64 = (power.rise.at(slew_ns, loads) + power.fall.at(slew_ns, loads)) / 2
    return found


def _conditions(cell: Cell, holds: Callable[[Mapping[str, bool], bool], bool]) -> Mapping[str, npt.NDArray[np.bool_]]:
    """The states of a D flip-flop's pins for which something holds: value of each pin in each of them."""
    outputs = {pin.name: pin.function == ("pin", cell.state[0]) for pin in cell.outputs}
    names = (cell.clock, "D")
    found = []
    for *inputs, state in itertools.product((False, True), repeat=len(names) + 1):
        values = dict(zip(names, inputs, strict=True))
        if holds(values, state):
            found.append(values | {name: state == same for name, same in outputs.items()})
    return {name: np.array([values[name] for values in found]) for name in (*names, *outputs)}


def _mean(
    powers: tuple[Power, ...], states: Mapping[str, npt.NDArray[np.bool_]], value: Callable[[Power], float]
) -> float:
    """Mean over the energies whose condition can hold in these states; those without a condition always hold."""
    held = [power for power in powers if power.when is None or evaluate(power.when, states).any()]
    return float(np.mean([value(power) for power in held])) if held else 0.0
