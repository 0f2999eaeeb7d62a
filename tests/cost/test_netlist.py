from pathlib import Path

import cell_library
import numpy as np
import pytest

from mxcompile.cost.energy import clock_pin_fj, energy
from mxcompile.cost.liberty_syntax import LibertyError
from mxcompile.cost.netlist import Netlist, read_netlist, simulate
from mxcompile.cost.timing import arrivals

STREAMS = 64
CLK, D, Q, X, Y, Z = 2, 3, 4, 5, 6, 7


def toggle_flip_flop(folder: Path) -> Netlist:
    """A flip-flop whose inverted state is its next state: a divider by two."""
    ports = {"clk": ("input", [CLK]), "q": ("output", [Q])}
    cells = {"state": ("DFF", {"D": D, "CK": CLK, "Q": Q}), "next": ("INV", {"A": Q, "Y": D})}
    path = cell_library.netlist_file(folder, ports, cells)
    return read_netlist(path, "top", cell_library.toy_library(folder))


def registered_and(folder: Path) -> Netlist:
    """x AND not y, registered; cells listed last to first."""
    ports = {"clk": ("input", [CLK]), "x": ("input", [X, "0"]), "y": ("input", [Y]), "q": ("output", [Q, "1"])}
    cells = {
        "a": ("DFF", {"D": D, "CK": CLK, "Q": Q}),
        "b": ("AND", {"A": X, "B": Z, "Y": D}),
        "c": ("INV", {"A": Y, "Y": Z}),
    }
    path = cell_library.netlist_file(folder, ports, cells)
    return read_netlist(path, "top", cell_library.toy_library(folder))


def random_bits(clocks: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (clocks, STREAMS, width)).astype(bool)


def test_area_and_leakage_are_the_sums_of_the_cells(tmp_path: Path) -> None:
    netlist = registered_and(tmp_path)

    assert netlist.area_um2 == 2 + 3 + 5
    assert netlist.sequential_area_um2 == 5
    assert netlist.leakage_uw == pytest.approx((3 + 4 + 7) / 1e3)


def test_loads_are_the_input_pins_without_the_clocks(tmp_path: Path) -> None:
    netlist = registered_and(tmp_path)

    loads = netlist.loads_ff()

    assert loads[netlist.inputs["x"][0]] == 20
    assert loads[netlist.inputs["y"][0]] == 10
    assert sorted(loads[loads > 0]) == [10, 20, 30, 40]


def test_every_stream_follows_the_logic_one_clock_later(tmp_path: Path) -> None:
    x, y = random_bits(20, 2, 0), random_bits(20, 1, 1)

    trace = simulate(registered_and(tmp_path), {"x": x, "y": y}, skip=0)

    q = trace.outputs["q"]
    assert q.shape == (20, STREAMS, 2)
    assert np.array_equal(q[1:, :, 0], (x[..., 0] & ~y[..., 0])[:-1])
    assert q[..., 1].all()
    assert not q[0, :, 0].any()


def test_toggles_are_the_changes_after_the_skipped_clocks(tmp_path: Path) -> None:
    netlist = registered_and(tmp_path)
    x, y = random_bits(20, 2, 2), random_bits(20, 1, 3)

    trace = simulate(netlist, {"x": x, "y": y}, skip=5)

    assert trace.clocks == 14 * STREAMS
    assert trace.toggles[netlist.inputs["x"][0]] == np.count_nonzero(np.diff(x[5:, :, 0], axis=0))
    assert trace.toggles[netlist.inputs["y"][0]] == np.count_nonzero(np.diff(y[5:, :, 0], axis=0))
    q = trace.outputs["q"][5:, :, 0]
    assert trace.toggles[netlist.outputs["q"][0]] == np.count_nonzero(np.diff(q, axis=0))


def test_registers_with_feedback_keep_their_state(tmp_path: Path) -> None:
    ports = {"clk": ("input", [CLK]), "x": ("input", [X]), "q": ("output", [Q])}
    cells = {
        "state": ("DFF", {"D": D, "CK": CLK, "QN": Q}),
        "both": ("AND", {"A": X, "B": Q, "Y": D}),
    }
    path = cell_library.netlist_file(tmp_path, ports, cells)
    x = random_bits(30, 1, 4)

    trace = simulate(read_netlist(path, "top", cell_library.toy_library(tmp_path)), {"x": x}, skip=0)

    state = np.zeros(STREAMS, bool)
    for now, q in zip(x[..., 0], trace.outputs["q"][..., 0], strict=True):
        assert np.array_equal(q, ~state)
        state = now & ~state


def test_energy_of_a_toggling_flip_flop_is_what_the_tables_say(tmp_path: Path) -> None:
    ports = {"clk": ("input", [CLK]), "x": ("input", [X]), "q": ("output", [Q])}
    cells = {
        "state": ("DFF", {"D": D, "CK": CLK, "Q": Q}),
        "next": ("INV", {"A": Q, "Y": D}),
        "idle": ("DFF", {"D": X, "CK": CLK, "Q": Y}),
    }
    library = cell_library.toy_library(tmp_path)
    netlist = read_netlist(cell_library.netlist_file(tmp_path, ports, cells), "top", library)

    trace = simulate(netlist, {"x": np.zeros((12, STREAMS, 1), bool)}, skip=1)
    found = energy(netlist, trace, library.voltage_v, slew_ns=0.5)

    # each clock: D (40 fF) and Q (10 fF, the inverter's input) toggle at 2 V; the inverter's mean edge is 4 fJ
    assert found.nets_fj == pytest.approx(50 * 2**2 / 2)
    assert found.gates_fj == pytest.approx(4)
    # two clock pins of 50 fF; internally (1 + 2 + 3 + 4) / 2 fJ a clock without a change
    assert found.clock_fj == pytest.approx(2 * (50 * 2**2 + 5))
    # one changes: Q 11, QN 21, D with the clock high 2, the clock pin (6 + 8) / 2 instead of 5
    assert found.states_fj == pytest.approx(11 + 21 + 2 + (7 - 5))
    assert found.total_fj == pytest.approx(100 + 4 + 410 + 36)


def test_clock_pin_energy_depends_on_whether_the_state_changes(tmp_path: Path) -> None:
    assert clock_pin_fj(cell_library.toy_library(tmp_path).cells["DFF"], 0.5) == pytest.approx((5, 7))


def test_delay_is_clock_to_output_gates_and_setup(tmp_path: Path) -> None:
    netlist = toggle_flip_flop(tmp_path)

    found = arrivals(netlist, clock_slew_ns=0.5)

    # D has 40 fF. Q rises at 0.75, D then falls 4.4 later with slew 0.25: setup 0.35 + 0.25.
    # Q falls at 0.5, D then rises 1.4 later with slew 0.5: setup 0.15 + 0.5, earlier.
    d = int(netlist.flip_flops[0].pins["D"][0])
    assert found.times_ns[:, d] == pytest.approx([0.5 + 1.4, 0.75 + 4.4])
    assert found.slews_ns[:, d] == pytest.approx([0.5, 0.25])
    assert found.delay_ns == pytest.approx(0.75 + 4.4 + 0.6)


def test_cells_that_the_library_lacks_are_refused(tmp_path: Path) -> None:
    path = cell_library.netlist_file(tmp_path, {}, {"u": ("$_XOR_", {"A": X, "B": Y, "Y": Z})})

    with pytest.raises(LibertyError, match=r"cell u of top is a \$_XOR_.*not mapped"):
        read_netlist(path, "top", cell_library.toy_library(tmp_path))


def test_combinational_loops_are_refused(tmp_path: Path) -> None:
    cells = {"u": ("INV", {"A": X, "Y": Y}), "v": ("AND", {"A": Y, "B": Z, "Y": X})}
    path = cell_library.netlist_file(tmp_path, {"z": ("input", [Z])}, cells)

    with pytest.raises(LibertyError, match="combinational loop through 2 cells"):
        read_netlist(path, "top", cell_library.toy_library(tmp_path))


@pytest.mark.parametrize("second", [("DFF", {"D": X, "CK": Z, "Q": Y}), ("DFFR", {"D": X, "CK": CLK, "RN": Z, "Q": Y})])
def test_two_clocks_and_resets_are_refused(tmp_path: Path, second: tuple[str, dict[str, int]]) -> None:
    cells = {"u": ("DFF", {"D": X, "CK": CLK, "Q": Q}), "v": second}
    path = cell_library.netlist_file(tmp_path, {"x": ("input", [X])}, cells)

    with pytest.raises(LibertyError, match="one rising edge is allowed"):
        read_netlist(path, "top", cell_library.toy_library(tmp_path))


def test_streams_come_in_words_and_for_every_port(tmp_path: Path) -> None:
    netlist = registered_and(tmp_path)

    with pytest.raises(ValueError, match=r"\['y'\]"):
        simulate(netlist, {"x": random_bits(3, 2, 0)}, skip=0)
    with pytest.raises(ValueError, match="63 streams"):
        simulate(netlist, {"x": random_bits(3, 2, 0)[:, 1:], "y": random_bits(3, 1, 0)[:, 1:]}, skip=0)
