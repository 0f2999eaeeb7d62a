"""Unit costs: what a technology file may say, and what is not in it is an error, never 0."""

import dataclasses
from pathlib import Path

import pytest
from cost_models import technology, technology_file

from mxcompile.cost.data_files import DATA, STATUSES
from mxcompile.cost.unit_cost import load_published, load_technology
from mxcompile.errors import CostModelError

SHIPPED = ("freepdk45", "osu018")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A technology file without a fault."""
    return technology_file(tmp_path)


def test_a_file_gives_what_it_says(file: Path) -> None:
    loaded = load_technology(str(file))
    assert loaded.units == technology().units
    assert (loaded.name, loaded.node_nm, loaded.tools) == ("round", 45, {"yosys": "0.0"})


def test_two_libraries_are_shipped() -> None:
    assert sorted(path.stem for path in (DATA / "technology").glob("*.toml")) == sorted(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_technology_states_all_that_an_estimate_needs(name: str) -> None:
    loaded = load_technology(name)
    assert loaded.name == name
    assert loaded.units
    for unit in loaded.units:
        assert loaded.unit(unit, "a test").status in STATUSES


def test_an_unknown_technology_is_an_error_that_lists_the_shipped_ones() -> None:
    with pytest.raises(CostModelError, match=r"unknown technology 'tsmc3': shipped are .*FILE\.toml"):
        load_technology("tsmc3")


def test_a_name_does_not_leave_the_folder_of_the_shipped_files() -> None:
    with pytest.raises(CostModelError, match="unknown technology"):
        load_technology("../engine/edge-npu")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CostModelError, match=r"none\.toml: cannot be read as TOML"):
        load_technology(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clock_hz = ", "clock_ghz = ", "unknown key 'clock_ghz'"),
        ("[technology]", "[tech]", "unknown key 'tech'"),
        ("node_nm = 45", "", "'node_nm' is missing"),
        ("node_nm = 45", "node_nm = -45", "node_nm: is -45; a finite number that is not negative is expected"),
        ("node_nm = 45", "node_nm = 0", "clock_hz and node_nm must be above 0"),
        ("node_nm = 45", 'node_nm = "45"', "a finite number"),
        ("area_um2 = 800.0", "area_um2 = nan", "area_um2: is nan"),
        ("energy_pj_per_op = 8.0", "energy_pj_per_op = -1.0", "energy_pj_per_op: is -1.0"),
        ("energy_pj_per_op = 8.0", "energy_pj_per_op = inf", "energy_pj_per_op: is inf"),
        ("energy_pj_per_op = 8.0", "energy_pj_per_op = true", "energy_pj_per_op: is True"),
        ("lanes = 32", "lanes = 32.5", "a whole number"),
        ('status = "measured"', 'status = "guessed"', "one of measured, published, assumed"),
        ('kind = "dot"', 'kind = "adder"', "one of dot, quantize"),
        ("leakage_uw = 4.0", "leakage_mw = 4.0", "unknown key 'leakage_mw'"),
        ('name = "mxfp4"', 'name = "fp16"', "two units 'fp16'"),
        ('name = "mxfp4"', "name = 4", "a string is expected"),
        ("[[unit]]", "[[unit]", "cannot be read as TOML"),
    ],
)
def test_a_fault_in_a_file_is_an_error_that_names_it(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")
    with pytest.raises(CostModelError, match=message.replace("(", r"\(")) as error:
        load_technology(str(file))
    assert str(file) in str(error.value)


def test_a_missing_unit_is_an_error_that_names_it_and_who_needs_it() -> None:
    with pytest.raises(CostModelError, match=r"MatMulBlock /q: needs the unit 'nvfp4'.*it has .*mxfp4"):
        technology().unit("nvfp4", "MatMulBlock /q")


@pytest.mark.parametrize("key", ["area_um2", "energy_pj_per_op", "lanes"])
@pytest.mark.parametrize("value", [None, 0])
def test_a_unit_without_a_figure_is_an_error_and_not_free(key: str, value: float | None) -> None:
    known = technology()
    unit = dataclasses.replace(known.units["mxfp4"], **{key: value})
    with pytest.raises(CostModelError, match=f"states no {key} of the unit 'mxfp4'"):
        dataclasses.replace(known, units={"mxfp4": unit}).unit("mxfp4", "a test")


def test_every_published_figure_has_a_source_and_says_that_it_is_published() -> None:
    for unit in load_published():
        assert unit.status == "published"
        assert unit.source
        assert unit.node_nm or unit.relative_to


def test_published_ratios_are_those_of_the_papers() -> None:
    units = {unit.name: unit for unit in load_published()}
    int8, dint4 = units["dint/int8_int8"], units["dint/dint4_int8"]
    assert int8.area_um2 is not None
    assert dint4.area_um2 is not None
    assert int8.energy_pj_per_op is not None
    assert dint4.energy_pj_per_op is not None
    # Two digits, as the paper prints them: 1.93x and 2.56x.
    assert int8.area_um2 / dint4.area_um2 == pytest.approx(1.93, abs=0.01)
    assert int8.energy_pj_per_op / dint4.energy_pj_per_op == pytest.approx(2.56, abs=0.01)
    assert all(unit.relative_to in units for unit in units.values() if unit.relative_to)
