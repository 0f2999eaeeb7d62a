"""Engines: what a file may say, and which constants hold where."""

from pathlib import Path

import pytest
from cost_models import engine

from mxcompile.cost.data_files import DATA, STATUSES
from mxcompile.cost.engine import DRAM_ENERGY, ON_CHIP, SRAM_ENERGY, load_engine
from mxcompile.errors import CostModelError

SHIPPED = sorted(path.stem for path in (DATA / "engine").glob("*.toml"))
EDGE = DATA / "engine" / "edge-npu.toml"


def test_an_edge_engine_and_a_datacenter_engine_are_shipped() -> None:
    assert SHIPPED == ["datacenter-tile", "edge-npu"]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_figure_of_a_shipped_engine_has_a_source(name: str) -> None:
    loaded = load_engine(name)
    assert loaded.name == name
    assert loaded.source
    assert {constant.name for constant in loaded.constants} == {*ON_CHIP, DRAM_ENERGY}
    for constant in loaded.constants:
        assert constant.source
        assert constant.status in STATUSES
        assert constant.value > 0


def test_an_engine_without_an_array_for_floats_has_the_same_one_for_them(tmp_path: Path) -> None:
    text = EDGE.read_text("utf-8").replace("[float_array]\nrows = 4\ncolumns = 4\n", "")
    (tmp_path / "engine.toml").write_text(text, "utf-8")
    loaded = load_engine(str(tmp_path / "engine.toml"))
    assert loaded.float_array == loaded.array


def test_an_engine_may_name_units_for_formats_pairs_and_quantizers(tmp_path: Path) -> None:
    units = "[units]\namxfp4 = 'a'\n'mxfp8_e4m3 x mxfp4' = 'b'\nquantize_dint3 = 'c'\n'float16 x mxfp4' = 'd'\n"
    (tmp_path / "engine.toml").write_text(units + EDGE.read_text("utf-8"), "utf-8")
    assert list(load_engine(str(tmp_path / "engine.toml")).units.values()) == ["a", "b", "c", "d"]


def test_an_energy_on_the_chip_holds_for_its_node_alone() -> None:
    stated = engine().constant(SRAM_ENERGY, 45)
    assert stated is not None
    assert stated.value == 8
    assert engine().constant(SRAM_ENERGY, 180) is None


def test_dram_is_another_chip_and_holds_for_every_node() -> None:
    assert engine().constant(DRAM_ENERGY, 45) == engine().constant(DRAM_ENERGY, 180) is not None


def test_an_unknown_engine_is_an_error_that_lists_the_shipped_ones() -> None:
    with pytest.raises(CostModelError, match="unknown engine 'tpu': shipped are datacenter-tile, edge-npu"):
        load_engine("tpu")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[dram]", "[hbm]", "unknown key 'hbm'"),
        ("[vector]\nlanes = 64\n", "", r"has no table \[vector\]"),
        ("[array]\nrows = 16", "[array]\nrows = 0", r"\[array\]: rows: is 0"),
        ("[array]\nrows = 16", "[array]\nrows = 1.5", "a whole number"),
        ("[array]\nrows = 16", "[array]", "'rows' is missing"),
        ("bytes = 1_048_576", "bytes = -1", "bytes: is -1"),
        ("bandwidth_bytes_per_s = 12.8e9", "bandwidth_bytes_per_s = nan", "bandwidth_bytes_per_s: is nan"),
        ("bandwidth_bytes_per_s = 12.8e9", "bandwidth = 12.8e9", "unknown key 'bandwidth'"),
        ("value = 12.5", "value = -12.5", "value: is -12.5"),
        ("value = 12.5\nnode_nm = 45", "value = 12.5", "sram_energy_pj_per_byte: state the node_nm"),
        ("value = 162.5", "value = 162.5\nnode_nm = 45", "dram_energy_pj_per_byte: leave node_nm out"),
        ('name = "sram_energy_pj_per_byte"', 'name = "sram_energy"', "unknown constant 'sram_energy'"),
        ('name = "buffer_energy_pj_per_byte"', 'name = "sram_energy_pj_per_byte"', "stands there twice"),
        ("float_bits = 16", "float_bits = 8", "float_bits is 8; allowed are 16 and 32"),
        ("[array]", "[units]\namxfp4 = 4\n[array]", r"\[units\]"),
        ("[array]", "[units]\namxpf4 = 'mxfp4'\n[array]", "unknown key 'amxpf4'; allowed are a format, a pair"),
        ("[array]", "[units]\n'mxfp4 x fp9' = 'mxfp4'\n[array]", "unknown key 'mxfp4 x fp9'"),
        ("[quantizers]", "[[quantizers]]", "a table is expected"),
    ],
)
def test_a_fault_in_a_file_is_an_error_that_names_it(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = EDGE.read_text("utf-8")
    assert old in text
    file = tmp_path / "engine.toml"
    file.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(CostModelError, match=message) as error:
        load_engine(str(file))
    assert str(file) in str(error.value)
