import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import rtl_simulation

from mxcompile.cost import characterize, stimuli, synthesis, unit_streams
from mxcompile.cost.liberty import Library, read_library
from mxcompile.cost.ratios import ratios
from mxcompile.cost.rtl_units import LANES, RTL, UNITS
from mxcompile.cost.synthesis import Synthesized
from mxcompile.cost.unit_cost import Technology, load_technology
from mxcompile.errors import CostModelError
from mxcompile.formats import get_format
from mxcompile.formats.elements import E2M1, E5M2

LIBRARIES = {cells.name: cells for cells in characterize.LIBRARIES}
DEBIAN = LIBRARIES["osu018"]
BY_NAME = {unit.name: unit for unit in UNITS}
SMALL = BY_NAME["int4_int4"]

AREA_BETWEEN_VERSIONS = 0.08
"""What areas moved between versions of yosys. Source: measured on these kinds of units (docs/cost-model.md)."""


# --- the tables that are shipped


@pytest.fixture(params=LIBRARIES)
def technology(request: pytest.FixtureRequest) -> Technology:
    return load_technology(request.param)


def test_every_unit_is_in_the_table_with_the_digest_of_its_verilog(technology: Technology) -> None:
    assert list(technology.units) == [unit.name for unit in UNITS]
    for unit in UNITS:
        assert technology.units[unit.name].rtl_sha256 == unit.sha256, f"{unit.name}: run make characterize"


def test_tables_were_made_by_the_scripts_of_today(technology: Technology) -> None:
    assert technology.script_sha256 == synthesis.script_sha256(), "run make characterize"
    assert technology.clock_hz == LIBRARIES[technology.name].clock_hz
    assert technology.node_nm == LIBRARIES[technology.name].node_nm


def test_every_unit_meets_the_clock(technology: Technology) -> None:
    for unit in technology.units.values():
        assert unit.delay_ns is not None
        assert 0 < unit.delay_ns <= 1e9 / technology.clock_hz, unit.name


def test_figures_of_a_row_fit_each_other(technology: Technology) -> None:
    for name, unit in technology.units.items():
        assert unit.sequential_area_um2 is not None
        assert unit.area_um2 is not None
        assert unit.energy_pj_per_op is not None
        assert unit.energy_random_pj_per_op is not None
        assert 0 < unit.sequential_area_um2 < unit.area_um2
        assert min(unit.energy_pj_per_op, unit.energy_random_pj_per_op) > 0
        assert unit.status == "measured"
        assert unit.lanes == LANES
        assert unit.latency_cycles == BY_NAME[name].latency_cycles


def test_both_tables_were_made_on_the_same_operands_with_the_same_tools() -> None:
    first, second = (load_technology(name) for name in LIBRARIES)

    assert first.stimuli_sha256 == second.stimuli_sha256
    assert first.tools == second.tools


def test_every_verilog_file_is_a_unit_or_a_part_of_one() -> None:
    used = {path for unit in UNITS for path in unit.sources}

    assert used == set(RTL.glob("*.v"))


# --- ratios


def test_ratios_are_the_least_and_the_greatest_of_the_technologies() -> None:
    def made(name: str, areas: tuple[float, float], energies: tuple[float, float]) -> Technology:
        base = load_technology("osu018")
        units = {
            unit: characterize_row(base, unit, area, energy)
            for unit, area, energy in zip(("int8_int8", "mxfp4"), areas, energies, strict=True)
        }
        return Technology(name=name, node_nm=1, clock_hz=1, status="measured", source="", units=units)

    def characterize_row(base: Technology, name: str, area: float, energy: float):
        import dataclasses

        figures = {"area_um2": area, "energy_pj_per_op": energy, "energy_random_pj_per_op": 2 * energy}
        return dataclasses.replace(base.units["int8_int8"], name=name, **figures)

    found = ratios([made("a", (10, 5), (4, 1)), made("b", (100, 40), (8, 4))])

    assert found["mxfp4"].area == (0.4, 0.5)
    assert found["mxfp4"].energy == (0.25, 0.5)
    assert found["int8_int8"].energy_random == (1, 1)


# --- files


def test_written_tables_read_back_the_same(tmp_path: Path) -> None:
    head = {"name": 'quo"te\\', "clock_hz": 4e8, "node_nm": 45, "tools": {"yosys": "0.23"}}
    rows = [{"name": "x", "area_um2": 1.25}, {"name": "y", "energy_pj_per_op": 1e-05}]

    characterize.write_toml(tmp_path / "new" / "a.toml", {"technology": head}, rows)

    assert tomllib.loads((tmp_path / "new" / "a.toml").read_text("utf-8")) == {"technology": head, "unit": rows}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.toml"]


def test_digests_tell_names_and_contents_apart() -> None:
    from mxcompile.cost.rtl_units import digest

    texts = [{"a": "x"}, {"b": "x"}, {"a": "y"}, {"a": "x", "b": ""}, {"b": "", "a": "x"}]

    assert len({digest(each) for each in texts}) == len(texts)


def test_a_unit_brings_the_files_of_the_modules_in_it() -> None:
    names = [path.name for path in BY_NAME["mxfp4"].sources]

    assert "mxfp4.v" in names
    assert "lib_accumulate_fp32.v" in names
    assert "int8_int8.v" not in names


# --- stimuli


@pytest.fixture(scope="module")
def products() -> tuple[stimuli.Product, ...]:
    random = np.random.default_rng(1)
    shapes = [(5, 64, 9), (3, 96, 4)]
    return tuple(
        stimuli.Product(f"p{i}", *(random.standard_normal((rows, k)).astype(np.float32) for rows in (m, n)))
        for i, (m, k, n) in enumerate(shapes)
    )


@pytest.fixture(scope="module")
def choice(products: tuple[stimuli.Product, ...]) -> stimuli.Choice:
    return stimuli.choose(products, streams=64, clocks=11)


def test_streams_go_through_k_block_by_block(products, choice: stimuli.Choice) -> None:
    assert choice.block.shape == (64, 11)
    assert choice.clear[:, 0].all()
    last = np.array([product.a.shape[1] // LANES - 1 for product in products])[choice.product]
    ended = choice.block[:, :-1] == last[:, :-1]
    assert np.array_equal(choice.clear[:, 1:], ended)
    assert np.array_equal(choice.block[:, 1:][~ended], choice.block[:, :-1][~ended] + 1)
    assert set(np.unique(choice.product)) == {0, 1}


@pytest.mark.parametrize("name", ["amxfp4", "mxfp4", "mxfp8_e4m3", "mxint8"])
def test_operands_are_the_codes_and_scales_of_whole_tensors(products, choice: stimuli.Choice, name: str) -> None:
    a, b = stimuli.operands(products, choice, name, name)

    for index, (stream, clock) in enumerate([(0, 0), (7, 10), (63, 5)]):
        product = products[choice.product[stream, clock]]
        for found, tensor, row in ((a, product.a, choice.row), (b, product.b, choice.column)):
            codes, scales = get_format(name).encode_rows(tensor)
            block = choice.block[stream, clock]
            at = slice(LANES * block, LANES * (block + 1))
            assert np.array_equal(found.codes[stream, clock], codes[row[stream, clock], at]), index
            assert np.array_equal(found.scales[stream, clock], scales[row[stream, clock], block])


@pytest.mark.parametrize(("name", "s"), [("int8", 1), ("dint4", 1), ("nvfp4", 2), ("float16", 0), ("amxfp4_synced", 2)])
def test_a_unit_gets_zero_points_scales_of_both_halves_or_nothing(products, choice, name: str, s: int) -> None:
    found, _ = stimuli.operands(products, choice, name, name)

    assert found.scales.shape == (64, 11, s)
    assert found.codes.dtype == (np.uint16 if name == "float16" else np.uint8)
    if name in ("int8", "dint4"):
        product = products[choice.product[3, 4]]
        _, scales = get_format(name).encode_rows(product.a)
        assert found.scales[3, 4, 0] == scales[choice.row[3, 4], 0, 4]


def test_random_codes_are_numbers(products, choice: stimuli.Choice) -> None:
    for name in ("mxfp8_e4m3", "mxfp8_e5m2", "float16"):
        like, _ = stimuli.operands(products, choice, name, name)
        found = stimuli.random_operands(name, like, seed=3)
        values = (
            found.codes.view(np.float16) if name == "float16" else get_format(name).element.decode_table[found.codes]
        )
        assert np.isfinite(values).all()
        assert len(np.unique(found.codes)) > 240
        assert np.array_equal(np.sort(found.scales, axis=None), np.sort(like.scales, axis=None))


def test_synced_scales_share_their_mantissa_and_follow_both_sides() -> None:
    block = np.zeros((1, LANES), np.float32)
    block[0, :4] = [7.0, 6.0, -1.25, -0.25]  # 7 = 1.75 * 4, 1.25 = 1.25 * 1

    codes, scales = stimuli.encode_synced(block)

    values = E5M2.decode_table[scales[0]]
    assert values.tolist() == [1.75, 1.75 / 4]
    assert (scales & 3).tolist() == [[3, 3]]
    assert E2M1.decode_table[codes[0, :4]].tolist() == [4.0, 3.0, -3.0, -0.5]
    assert not codes[0, 4:].any()


def test_synced_scales_of_an_empty_side_and_of_an_empty_block_are_the_lowest() -> None:
    blocks = np.zeros((2, LANES), np.float32)
    blocks[0, 0] = 4.0

    codes, scales = stimuli.encode_synced(blocks)

    assert scales.tolist() == [[0x3C, 0], [0, 0]]
    assert E2M1.decode_table[codes[0, 0]] == 4.0


def test_far_scales_count_blocks_that_use_both() -> None:
    codes = np.zeros((1, 4, LANES), np.uint8)
    codes[0, :, 0] = 1
    codes[0, :3, 1] = 9
    one, eight = E5M2.values.index(1.0), E5M2.values.index(8.0)
    scales = np.array([[[one, eight], [eight, eight], [eight, one], [one, eight]]], np.uint8)

    found = stimuli.far_scales(stimuli.Operands(codes, scales), lambda byte: E5M2.decode_table[byte])

    assert (found[0], found[2], found[3]) == (0.5, 0.5, 0.0)


def test_bits_of_a_port_begin_with_the_first_part() -> None:
    bits = unit_streams.port_bits(np.array([[[1, 2]], [[3, 0]]], np.uint8), 4)

    assert bits.shape == (1, 2, 4)
    assert bits[0].tolist() == [[True, False, False, True], [True, True, False, False]]


# --- synthesis, where the tools are

HAS_SYNTHESIS = shutil.which("yosys") is not None and DEBIAN.path.is_file()

if HAS_SYNTHESIS:

    @pytest.fixture(scope="module")
    def library() -> Library:
        return read_library(DEBIAN.path)

    @pytest.fixture(scope="module")
    def synthesized(library: Library) -> Synthesized:
        return synthesis.synthesize(SMALL.name, SMALL.sources, DEBIAN, library)

    def test_a_small_unit_synthesizes_to_the_area_of_the_table(synthesized: Synthesized) -> None:
        table = load_technology(DEBIAN.name)
        area = table.units[SMALL.name].area_um2

        if table.tools["yosys"] == synthesis.yosys_version():
            assert round(synthesized.netlist.area_um2, 3) == area
        else:
            assert synthesized.netlist.area_um2 == pytest.approx(area, rel=AREA_BETWEEN_VERSIONS)

    def test_a_netlist_that_answers_wrongly_is_refused(
        products, choice, synthesized: Synthesized, library: Library
    ) -> None:
        streams = unit_streams.model_streams(SMALL, products, choice)
        wrong = {"y": streams.expected["y"].copy()}
        wrong["y"][5, 3] ^= 1

        with pytest.raises(CostModelError, match=r"differs from the reference in 1 of .* clock 3 of stream 5"):
            unit_energy(synthesized, library, unit_streams.Streams(streams.inputs, wrong))
        assert unit_energy(synthesized, library, streams) > 0

    def unit_energy(made: Synthesized, library: Library, streams: unit_streams.Streams) -> float:
        return characterize.unit_energy_fj(SMALL, made.netlist, streams, library.voltage_v, DEBIAN.slew_ns)

    def test_rows_are_kept_until_something_that_they_depend_on_changes(tmp_path: Path, library: Library) -> None:
        table = characterize.Table(DEBIAN, library, tmp_path, "some operands")
        assert not table.is_current(SMALL)

        table.add(SMALL, {"name": SMALL.name, "rtl_sha256": SMALL.sha256})

        assert characterize.Table(DEBIAN, library, tmp_path, "some operands").is_current(SMALL)
        assert not characterize.Table(DEBIAN, library, tmp_path, "other operands").is_current(SMALL)
        table.add(SMALL, {"name": SMALL.name, "rtl_sha256": "that of an older file"})
        assert not characterize.Table(DEBIAN, library, tmp_path, "some operands").is_current(SMALL)

    def test_an_unreachable_clock_is_an_error(tmp_path: Path, library: Library) -> None:
        import dataclasses

        source = tmp_path / "late.v"
        source.write_text(
            "module late(input clk, input [3:0] a, output reg [3:0] y); reg [3:0] b;\n"
            "always @(posedge clk) begin b <= a; y <= b * b + 3; end endmodule\n",
            "utf-8",
        )
        fast = dataclasses.replace(DEBIAN, clock_hz=1e12)

        with pytest.raises(CostModelError, match=r"late: its longest path takes .* the clock is 0\.001 ns"):
            synthesis.synthesize("late", (source,), fast, library)


if HAS_SYNTHESIS and rtl_simulation.HAS_SIMULATOR:

    def test_the_netlist_answers_as_the_verilog_does_in_another_simulator(
        tmp_path: Path, products, choice, synthesized: Synthesized
    ) -> None:
        from mxcompile.cost.netlist import simulate

        streams = unit_streams.random_streams(SMALL, products, choice)
        netlist = synthesized.netlist
        bits = {name: unit_streams.port_bits(streams.inputs[name], len(nets)) for name, nets in netlist.inputs.items()}
        found = simulate(netlist, bits, skip=0).outputs["y"][SMALL.latency_cycles :, 0]

        codes = {name: rtl_simulation.pack_lanes(streams.inputs[name][0], 4) for name in ("a", "b")}
        ports = {name: (128, values) for name, values in codes.items()}
        ports["clear"] = (1, [int(each) for each in streams.inputs["clear"][0, :, 0]])
        answers = rtl_simulation.simulate(SMALL.name, ports, {"y": 32}, tmp_path)["y"]

        numbers = [sum(int(bit) << place for place, bit in enumerate(row)) for row in found]
        assert numbers == answers[: len(numbers)]
