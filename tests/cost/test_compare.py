"""The same work in other formats: bytes, units, and what quantizers and second scales add."""

import dataclasses

import pytest
from cost_models import engine, float_linear, linear, softmax, technology, workload

from mxcompile.cost.compare import compare, overhead
from mxcompile.cost.estimate import estimate
from mxcompile.cost.totals import total
from mxcompile.cost.units import row_bytes
from mxcompile.cost.workload import NodeWork, Workload
from mxcompile.errors import CostModelError, FormatError

ROUNDING = 2.0**-48
"""Relative, of differences of sums of a few terms in float64."""

SMALL_SRAM = 1150
"""Bytes of SRAM of which half does not hold the weights of `linear`."""


def small(**changes: object) -> NodeWork:
    """`linear` without activations, so that DRAM carries its weights alone."""
    return linear(input_bytes=0, output_bytes=0, **changes)


def in_format(work: Workload, name: str):
    """The alternative in that format, weights in DRAM."""
    cost = estimate(work, engine(sram_bytes=SMALL_SRAM), technology(), tokens=8)
    (found,) = compare(work, cost, [name])
    return found


def test_the_same_format_costs_the_same() -> None:
    work = workload(linear(), float_linear(), softmax())
    cost = estimate(work, engine(sram_bytes=SMALL_SRAM), technology(), tokens=8)
    assert compare(work, cost, ["amxfp4"])[0].cost == cost


@pytest.mark.parametrize("name", ["mxfp4", "int8", "dint4", "float16"])
def test_weights_take_the_bytes_of_the_format(name: str) -> None:
    (node,) = in_format(workload(small()), name).cost.nodes
    codes, scales = row_bytes(name, 64)
    assert (node.weight_bytes, node.scale_bytes) == (16 * codes, 16 * scales)


def test_a_bias_stays_as_it_is() -> None:
    with_bias = small(weight_code_bytes=16 * 32 + 16 * 4)
    assert in_format(workload(with_bias), "int8").cost.nodes[0].weight_bytes == 16 * 64 + 16 * 4


def test_macs_cost_what_the_other_unit_costs() -> None:
    other = in_format(workload(linear(), float_linear()), "mxfp4")
    assert other.total.mac_energy_pj == 8192 * 1.0 + 8192 * 8
    assert other.total.quantize_energy_pj == 512 * 0.25
    assert other.total.area_um2 == 16 * 100 + 4 * 800 + 2 * 40


def test_integers_pair_with_int8_activations() -> None:
    attention = linear("/qk", kind="attention", weight_code_bytes=0, weight_scale_bytes=0)
    linears, products = in_format(workload(linear(), attention), "dint4").cost.nodes
    assert (linears.a_format, linears.b_format, linears.unit) == ("int8", "dint4", "dint4_int8")
    assert (products.a_format, products.b_format, products.unit) == ("int8", "int8", "int8_int8")


def test_in_float16_nothing_is_quantized_and_floats_stay_on_their_array() -> None:
    other = in_format(workload(linear(), float_linear()), "float16")
    assert other.total.quantized == 0
    assert [(use.unit.name, use.count) for use in other.cost.plan.arrays] == [("fp16", 16), ("fp16", 4)]


def test_the_cache_takes_the_bytes_of_the_format() -> None:
    cached = small(
        kind="attention", weight_code_bytes=0, weight_scale_bytes=0, cache_code_bytes=512, cache_scale_bytes=64
    )
    (node,) = in_format(workload(cached), "mxfp4").cost.nodes
    assert (node.cache_bytes, node.scale_bytes) == (512, 32)


def test_activations_of_weights_alone_in_four_bits_are_quantized_too() -> None:
    weight_only = small(a_format="float16", quantized=0, quantized_format="")
    assert in_format(workload(weight_only), "mxfp4").total.quantized == 8 * 64


def test_quantizers_apart_write_the_other_format() -> None:
    quantize = NodeWork(
        "/quantize",
        "QuantizeBlock",
        "quantize",
        quantized=64,
        quantized_format="amxfp4",
        input_bytes=128,
        output_bytes=36,
    )
    work = workload(linear(quantized=0, quantized_format=""), quantize)
    assert in_format(work, "mxfp4").cost.nodes[1].activation_bytes == 128 + 34
    unquantized = in_format(work, "float16").cost.nodes[1]
    assert (unquantized.quantized, unquantized.energy_pj) == (0, 0)


def test_a_model_without_quantized_products_has_nothing_to_compare() -> None:
    with pytest.raises(CostModelError, match="no product of the model is quantized"):
        in_format(workload(float_linear()), "mxfp4")


def test_an_unknown_format_is_an_error() -> None:
    with pytest.raises(FormatError, match="mxfp5"):
        in_format(workload(linear()), "mxfp5")


def test_quantizers_have_their_share_of_area_and_energy() -> None:
    work = workload(linear())
    cost = estimate(work, engine(), technology(), tokens=8)
    added, whole = overhead(work, cost), total(cost)
    assert (added.quantizer_area_um2, added.quantizer_energy_pj) == (2 * 60, 512 * 0.5)
    assert added.quantizer_area_share == 2 * 60 / whole.area_um2
    assert added.quantizer_energy_share == 512 * 0.5 / whole.energy_pj


def test_second_scales_cost_what_a_unit_for_one_scale_saves() -> None:
    work = workload(linear())
    cost = estimate(work, engine(), technology(), tokens=8)
    added = overhead(work, cost)
    assert added.twins == {"amxfp4": "fp4_e5m2"}
    assert added.asymmetric_area_um2 == 16 * (150 - 110)
    # A row has two scales less of 36 bytes; `test_estimate` has the reads and writes of rows.
    buffered, stored = (8 * 4 + 16 * 2) + (8 + 16), (8 + 16) + 8
    saved = 8192 * (1.5 - 1.25) + 2 * buffered * 4 + 2 * stored * 8 + 16 * (1.0 - 0.5) * 0.064
    assert added.asymmetric_energy_pj == pytest.approx(saved, rel=ROUNDING)


def test_a_model_with_one_scale_a_block_has_no_second_scales() -> None:
    work = workload(linear(a_format="mxfp4", b_format="mxfp4", quantized_format="mxfp4"))
    added = overhead(work, estimate(work, engine(), technology(), tokens=8))
    assert (added.twins, added.asymmetric_area_um2, added.asymmetric_energy_pj) == ({}, 0, 0)


def test_without_the_unit_to_compare_with_the_overhead_is_not_stated() -> None:
    known = technology()
    units = {name: unit for name, unit in known.units.items() if name != "fp4_e5m2"}
    work = workload(linear())
    added = overhead(work, estimate(work, engine(), dataclasses.replace(known, units=units), tokens=8))
    assert (added.asymmetric_area_um2, added.asymmetric_energy_share) == (None, None)
