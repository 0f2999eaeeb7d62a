"""Static timing of a netlist by Liberty's delay tables: the longest way from register to register.

Arrival times and slews of rising and falling edges are propagated apart, the worst of each kept. Loads are those of
the input pins: without wires, so that a layout is slower. Input ports lead to registers and are not timed.
"""

import dataclasses
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from mxcompile.cost.liberty import Timing
from mxcompile.cost.netlist import Gates, Netlist

Float64 = npt.NDArray[np.float64]

RISE: Final = 0
FALL: Final = 1
_CAUSES: Final = {"positive_unate": (0,), "negative_unate": (1,), "non_unate": (0, 1)}
"""Which edge of the input makes an output's edge: the same (0) or the other one (1)."""


@dataclasses.dataclass(frozen=True)
class Arrivals:
    """When signals settle after a clock's edge.

    Attributes:
        delay_ns: The shortest possible clock: longest way from a register to a register, setup time included.
        times_ns: Arrival of each net's rising and falling edge, float64 ``[2, nets]``; -inf where none comes.
        slews_ns: Slews of the same edges.
    """

    delay_ns: float
    times_ns: Float64
    slews_ns: Float64


def arrivals(netlist: Netlist, clock_slew_ns: float) -> Arrivals:
    """Propagates the edges of one clock.

    Args:
        netlist: The unit.
        clock_slew_ns: Slew of the clock at the registers.
    """
    loads = netlist.loads_ff()
    times = np.full((2, netlist.nets), -np.inf)
    slews = np.full((2, netlist.nets), clock_slew_ns)
    launch = np.zeros((2, netlist.nets))
    for group in netlist.flip_flops:
        _propagate(group, launch, np.full_like(slews, clock_slew_ns), loads, times, slews)
    for group in netlist.gates:
        _propagate(group, times, slews, loads, times, slews)
    delay = max((_setup(group, times, slews, clock_slew_ns) for group in netlist.flip_flops), default=0.0)
    return Arrivals(delay, times, slews)


def _propagate(
    group: Gates, from_times: Float64, from_slews: Float64, loads: Float64, times: Float64, slews: Float64
) -> None:
    """Gives the outputs of these cells the worst of what their inputs cause."""
    for pin in group.cell.outputs:
        nets = group.pins[pin.name]
        late, steep = np.full((2, len(nets)), -np.inf), np.zeros((2, len(nets)))
        for timing in pin.timings:
            if "cell_rise" not in timing.tables and "cell_fall" not in timing.tables:
                continue
            sources = group.pins[timing.related]
            for edge, cause in _edges(timing):
                word = ("rise", "fall")[edge]
                if f"cell_{word}" not in timing.tables:
                    continue
                slew = from_slews[cause, sources]
                delay = timing.tables[f"cell_{word}"].at(slew, loads[nets])
                late[edge] = np.maximum(late[edge], from_times[cause, sources] + delay)
                steep[edge] = np.maximum(steep[edge], timing.tables[f"{word}_transition"].at(slew, loads[nets]))
        times[:, nets], slews[:, nets] = late, steep


def _edges(timing: Timing) -> Iterator[tuple[int, int]]:
    """Each edge of an output with an edge of the input that causes it; a clock's causing edge is the rising one."""
    for edge in (RISE, FALL):
        if timing.kind == "rising_edge":
            yield edge, RISE
        else:
            yield from ((edge, edge ^ other) for other in _CAUSES[timing.sense])


def _setup(group: Gates, times: Float64, slews: Float64, clock_slew_ns: float) -> float:
    """The latest arrival at these flip-flops' data pins, setup time included; 0 if nothing arrives."""
    latest = 0.0
    for name, pin in group.cell.pins.items():
        for timing in pin.timings:
            if timing.kind == "setup_rising":
                for edge, word in enumerate(("rise", "fall")):
                    nets = group.pins[name]
                    needed = timing.tables[f"{word}_constraint"].at(clock_slew_ns, slews[edge, nets])
                    latest = max(latest, float(np.max(times[edge, nets] + needed)))
    return latest
