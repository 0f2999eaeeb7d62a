from pathlib import Path

import cell_library
import numpy as np
import pytest

from mxcompile.cost.liberty import Table
from mxcompile.cost.liberty_syntax import LibertyError, evaluate, parse, parse_expression


def test_units_become_ff_fj_nw_and_um2(tmp_path: Path) -> None:
    library = cell_library.toy_library(tmp_path)

    inverter = library.cells["INV"]
    assert (library.name, library.voltage_v, library.temperature_c) == ("toy", 2.0, 25.0)
    assert (inverter.area_um2, inverter.leakage_nw) == (2.0, 3.0)
    assert inverter.pins["A"].capacitance_ff == 10.0
    power = inverter.pins["Y"].powers[0]
    assert (float(power.rise.at(0.3, 50)), float(power.fall.at(0.3, 50))) == (5.0, 3.0)


def test_axes_of_a_table_are_told_by_its_template(tmp_path: Path) -> None:
    timing = cell_library.toy_library(tmp_path).cells["INV"].pins["Y"].timings[0]

    assert float(timing.tables["cell_rise"].at(0.5, 150)) == 2.5
    assert float(timing.tables["cell_fall"].at(0.5, 150)) == 5.5


def test_setup_tables_have_the_clocks_slew_first(tmp_path: Path) -> None:
    setup = cell_library.toy_library(tmp_path).cells["DFF"].pins["D"].timings[0].tables["rise_constraint"]

    assert float(setup.at(1.0, 0.0)) == 0.2
    assert float(setup.at(0.0, 1.0)) == 1.1


def test_tables_interpolate_between_points_and_keep_the_edge_beyond() -> None:
    table = Table(np.array([0.0, 1.0]), np.array([0.0, 10.0]), np.array([[0.0, 10.0], [100.0, 110.0]]))

    assert table.at(0.25, [5, 20, -1]).tolist() == [30.0, 35.0, 25.0]


def test_flip_flops_with_set_or_reset_have_no_clock_here(tmp_path: Path) -> None:
    cells = cell_library.toy_library(tmp_path).cells

    assert cells["DFF"].clock == "CK"
    assert cells["DFFR"].clock == ""
    assert cells["DFFR"].state == ("IQ", "IQN")
    assert cells["AND"].state == ()


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("!(A & B)", lambda a, b, c: not (a and b)),
        ("A' B", lambda a, b, c: not a and b),
        ("A*B+C", lambda a, b, c: (a and b) or c),
        ("A + B C", lambda a, b, c: a or (b and c)),
        ("A B' C", lambda a, b, c: a and not b and c),
        ("A ^ B & C", lambda a, b, c: (a != b) and c),
        ("(A|B)'^C", lambda a, b, c: (not (a or b)) != c),
        ("!A !B | 0", lambda a, b, c: not a and not b),
        ("(A B)(B + C)", lambda a, b, c: a and b),
        ("1", lambda a, b, c: True),
    ],
)
def test_expressions_bind_inversion_then_xor_then_and_then_or(text, function) -> None:
    columns = [bool(index >> bit & 1) for bit in range(3) for index in range(8)]
    values = dict(zip("ABC", np.array(columns).reshape(3, 8), strict=True))

    found = evaluate(parse_expression(text), values)

    assert found.tolist() == [bool(function(*row)) for row in zip(*(values[name] for name in "ABC"), strict=True)]


@pytest.mark.parametrize("text", ["A &", "(A", "A )"])
def test_broken_expressions_are_refused(text: str) -> None:
    with pytest.raises(LibertyError, match="Boolean expression"):
        parse_expression(text)


def test_attributes_groups_and_lines_without_semicolons_are_told_apart() -> None:
    group = parse('a (b, "c d") { one : 1; two : "x" \n three : y;\n four (5, 6); five () { six : 7; } }')

    assert (group.kind, group.arguments) == ("a", ("b", "c d"))
    assert group.attributes == {"one": ("1",), "two": ("x",), "three": ("y",), "four": ("5", "6")}
    assert next(group.all("five")).text("six") == "7"


def test_a_missing_bracket_is_an_error() -> None:
    with pytest.raises(LibertyError, match="closing bracket is missing"):
        parse("library (x) { cell (y) { area : 1; }")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('time_unit : "1ns"', 'time_unit : "10ps"', "units are missing or unknown"),
        ('voltage_unit : "1V"', 'voltage_unit : "1mV"', "must be 1V"),
        ("library (toy)", "cell (toy)", "begins with a group 'cell'"),
    ],
)
def test_other_units_and_files_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(LibertyError, match=message):
        cell_library.toy_library(tmp_path, cell_library.TEXT.replace(old, new))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    from mxcompile.cost.liberty import read_library

    with pytest.raises(LibertyError, match="cannot be read"):
        read_library(tmp_path / "none.lib")
