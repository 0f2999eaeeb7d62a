"""docs/cost-model.md is true: its constants, keys and unit costs are those of the code and the data files."""

import re
from pathlib import Path

import pytest

from mxcompile.cost.data_files import DATA
from mxcompile.cost.engine import DRAM_ENERGY, ON_CHIP, load_engine
from mxcompile.cost.unit_cost import load_published, load_technology
from mxcompile.passes.annotate_cost import MODEL_KEYS, NODE_KEYS, UNCOVERED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cost-model.md").read_text("utf-8")
ENGINES = ("edge-npu", "datacenter-tile")
TECHNOLOGIES = ("freepdk45", "osu018")


def rows(first: str) -> list[list[str]]:
    """Cells of the rows of a table whose first cell is code, by the table's head."""
    table = PAGE.split(f"| {first} |", 1)[1].split("\n\n", 1)[0]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines() if line.startswith("| `")
    ]


def test_the_constants_are_those_of_the_engine_files() -> None:
    said = {row[0].strip("` |"): [float(cell) for cell in row[1:3]] for row in rows("constant")}
    assert set(said) == {*ON_CHIP, DRAM_ENERGY}
    for index, name in enumerate(ENGINES):
        assert {each.name: each.value for each in load_engine(name).constants} == {
            key: values[index] for key, values in said.items()
        }


def test_every_key_of_an_engine_file_is_named() -> None:
    for name in ENGINES:
        text = (DATA / "engine" / f"{name}.toml").read_text("utf-8")
        for table in re.findall(r"^\[\[?(\w+)\]", text, re.MULTILINE):
            assert f"[{table}]" in PAGE
        for key in re.findall(r"^(\w+) =", text, re.MULTILINE):
            assert f"`{key}`" in PAGE


def test_every_key_of_the_metadata_is_named() -> None:
    section = PAGE.split("## In the model")[1]
    for key in (*NODE_KEYS, *MODEL_KEYS, UNCOVERED, "dims", "technology", "engine", "status"):
        assert f"`{key}`" in section or key in NODE_KEYS, key


@pytest.mark.parametrize("index", range(len(TECHNOLOGIES)))
def test_the_unit_costs_are_those_of_the_technology_files(index: int) -> None:
    units = load_technology(TECHNOLOGIES[index]).units
    said = {row[0].strip("` |"): row[1 + 2 * index : 3 + 2 * index] for row in rows("unit")}
    assert set(said) == set(units)
    for name, (area, energy) in said.items():
        unit = units[name]
        assert (area, energy) == (f"{unit.area_um2:.0f}", f"{unit.energy_pj_per_op:.3g}"), name


def test_every_published_source_is_named() -> None:
    for unit in load_published():
        (paper,) = re.findall(r"arXiv (\d+\.\d+)", unit.source)
        assert paper in PAGE
