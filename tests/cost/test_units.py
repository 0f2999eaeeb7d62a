"""Which unit a pair of formats runs on; a pair without one is an error."""

import pytest
from cost_models import engine

from mxcompile.config import CompileConfig
from mxcompile.cost.units import Chosen, dot_unit, has_tensor_scale, integer_sums, quantizer, quantizer_reads, row_bytes
from mxcompile.errors import CostModelError
from mxcompile.formats import FORMATS, get_format

WITHOUT_UNIT = ("amxfp4_e4m3", "amxint4", "dint3")
"""Formats that nobody built a unit for."""

BLOCKS = [f"{name}_b{size}" for name, fmt in FORMATS.items() for size in fmt.block_sizes if size]


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in WITHOUT_UNIT])
def test_every_pair_that_a_format_stands_for_has_a_unit_and_a_quantizer(name: str) -> None:
    config = CompileConfig.of(name)
    for pair in (
        (config.activations, config.weights),
        (config.attention, config.keys),
        (config.attention, config.values),
    ):
        assert dot_unit(*pair, engine()).name
    assert quantizer(config.activations, engine()).name.startswith("quantize_")


@pytest.mark.parametrize("name", WITHOUT_UNIT)
def test_a_format_without_a_unit_is_an_error_that_lists_the_units(name: str) -> None:
    config = CompileConfig.of(name)
    with pytest.raises(CostModelError, match=f"no unit multiplies {config.activations} x {name}; units exist for int8"):
        dot_unit(config.activations, name, engine())
    with pytest.raises(CostModelError, match=f"no unit quantizes to {name}"):
        quantizer(name, engine())


def test_formats_that_differ_in_rounding_share_a_unit() -> None:
    assert dot_unit("mxfp4_even", "mxfp4", engine()) == dot_unit("mxfp4", "mxfp4", engine())
    assert "one more comparison" in quantizer("mxfp4_even", engine()).remark


def test_a_product_with_a_floating_operand_runs_on_fp16_units_and_says_so() -> None:
    assert dot_unit("float16", "float16", engine()) == Chosen("fp16")
    assert "as float16" in dot_unit("float32", "float32", engine()).remark
    assert "decoded at the array's edge" in dot_unit("float16", "amxfp4", engine()).remark


def test_two_formats_without_a_common_unit_are_an_error() -> None:
    with pytest.raises(CostModelError, match=r"mxfp8_e4m3 x mxfp4.*\[units\] 'mxfp8_e4m3 x mxfp4' = "):
        dot_unit("mxfp8_e4m3", "mxfp4", engine())


@pytest.mark.parametrize("name", [name for name in BLOCKS if name.rpartition("_b")[0] not in WITHOUT_UNIT])
def test_blocks_of_whole_lanes_run_on_the_units_of_32_and_shorter_ones_on_none(name: str) -> None:
    base, _, size = name.rpartition("_b")
    a = get_format(base).paired_activations if base in ("dint4", "int4") else name
    if int(size) % 32 and base != "nvfp4":
        with pytest.raises(CostModelError, match=f"no unit multiplies blocks of {size}"):
            dot_unit(a, name, engine())
    else:
        assert dot_unit(a, name, engine()) == dot_unit(get_format(base).paired_activations, base, engine())


def test_an_engine_names_the_unit_of_a_format_of_a_pair_and_of_a_quantizer() -> None:
    own = engine(
        units={"amxfp4": "amxfp4_four_trees", "mxfp8_e4m3 x mxfp4": "mxfp8_e4m3", "quantize_dint3": "quantize_int8"}
    )
    assert dot_unit("amxfp4", "amxfp4", own) == Chosen("amxfp4_four_trees")
    assert dot_unit("amxfp4_b16", "amxfp4_b16", own) == Chosen("amxfp4_four_trees")
    assert dot_unit("mxfp8_e4m3", "mxfp4", own) == Chosen("mxfp8_e4m3")
    assert quantizer("dint3", own) == Chosen("quantize_int8")


def test_an_unknown_format_is_an_error_and_has_no_size() -> None:
    with pytest.raises(CostModelError, match="unknown operand format 'mxfp5'; known are float64"):
        row_bytes("mxfp5", 32)
    with pytest.raises(CostModelError, match="'none' is no operand"):
        row_bytes("none", 32)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("amxfp4", 64, (32, 4)),
        ("amxfp4", 65, (33, 6)),
        ("mxfp4", 64, (32, 2)),
        ("mxfp6_e3m2", 32, (24, 1)),
        ("int8", 100, (100, 5)),
        ("dint4_b32", 64, (32, 10)),
        ("float16", 64, (128, 0)),
        ("float32", 64, (256, 0)),
    ],
)
def test_a_row_takes_the_bytes_that_the_format_stores(name: str, size: int, expected: tuple[int, int]) -> None:
    assert row_bytes(name, size) == expected


def test_units_of_block_scaled_formats_give_finished_sums() -> None:
    assert integer_sums("amxfp4", "amxfp4", 64) == 0
    assert integer_sums("float16", "int8", 64) == 0
    assert integer_sums("int8", "dint4", 64) == 1
    assert integer_sums("int8", "dint4_b32", 65) == 3


def test_rows_and_tensors_with_a_scale_of_their_own_are_read_twice() -> None:
    names = ("int8", "dint4_b32", "nvfp4", "amxfp4", "")
    assert [quantizer_reads(name) for name in names] == [2, 2, 2, 1, 1]
    assert [has_tensor_scale(name) for name in names] == [False, False, True, False, False]
