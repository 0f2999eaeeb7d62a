"""The estimate: every formula against figures computed by hand, in the round numbers of `cost_models`."""

import dataclasses
import math

import pytest
from cost_models import engine, float_linear, linear, softmax, technology, workload

from mxcompile.cost.engine import Array
from mxcompile.cost.estimate import ENERGIES, NodeCost, estimate
from mxcompile.cost.storage import as_kept
from mxcompile.cost.totals import total
from mxcompile.cost.workload import NodeWork
from mxcompile.errors import CostModelError

ROUNDING = 2.0**-50
"""Relative: a few operations in float64, each off by at most 2^-53."""


def cost_of(*nodes: NodeWork, tokens: int = 8, **changes: object) -> list[NodeCost]:
    """Costs of the nodes on `engine` with those changes."""
    return list(estimate(workload(*nodes), engine(**changes), technology(), tokens=tokens).nodes)


def close(value: float) -> object:
    """A figure up to rounding."""
    return pytest.approx(value, rel=ROUNDING, abs=0)


def test_a_product_takes_the_cycles_of_its_tiles() -> None:
    (cost,) = cost_of(linear())
    # ceil(8 / 4) x ceil(16 / 4) tiles of ceil(64 / 32) + 4 + 4 - 2 steps
    assert cost.cycles == 2 * 4 * 8
    assert cost.utilization == close(8 * 64 * 16 / (64 * 16 * 32))
    assert (cost.latency_us, cost.bound) == (close(0.064), "compute")


def test_ragged_tiles_and_blocks_count_as_whole_ones() -> None:
    (cost,) = cost_of(linear(m=5, n=13, k=65, macs=5 * 13 * 65))
    assert cost.cycles == 2 * 4 * (3 + 6)


def test_independent_products_follow_each_other() -> None:
    (cost,) = cost_of(linear(batch=3, macs=3 * 8 * 64 * 16))
    assert cost.cycles == 3 * 64


def test_the_slowest_of_array_quantizers_and_vector_unit_decides() -> None:
    assert cost_of(linear(quantized=64 * 100))[0].cycles == 100
    assert cost_of(linear(vector_ops=8 * 99 + 1))[0].cycles == 100


def test_the_energy_of_a_product_is_that_of_its_parts() -> None:
    (cost,) = cost_of(linear())
    # Rows of both operands take 32 + 4 bytes. All tiles: 8 rows x 4 + 16 columns x 2; held in the buffer: each once.
    every_tile, once = 36 * (8 * 4 + 16 * 2), 36 * (8 + 16)
    quantizer = 8 * 64 * 4 + 36 * 8
    assert cost.buffer_bytes == every_tile + once
    assert cost.sram_bytes == once + quantizer + 8 * 16 * 4
    assert cost.mac_energy_pj == close(8192 * 1.5)
    assert cost.quantize_energy_pj == close(512 * 0.5)
    assert cost.vector_energy_pj == 0
    assert cost.buffer_energy_pj == close(4 * cost.buffer_bytes)
    assert cost.sram_energy_pj == close(8 * cost.sram_bytes)
    assert cost.dram_energy_pj == 0
    assert cost.leakage_energy_pj == close((16 * 1.0 + 2 * 0.25) * 0.064)
    assert cost.energy_pj == close(sum(getattr(cost, f"{part}_energy_pj") for part in ENERGIES))


def test_operands_that_no_buffer_holds_are_read_for_every_tile() -> None:
    (cost,) = cost_of(linear(), buffer_bytes=4 * 36 - 1)
    every_tile = 36 * (8 * 4 + 16 * 2)
    assert cost.buffer_bytes == 2 * every_tile
    assert cost.sram_bytes == every_tile + 8 * 64 * 4 + 36 * 8 + 8 * 16 * 4


def test_the_operand_is_held_whose_partner_is_read_less_often() -> None:
    # One tile of each fits: held rows make the columns pass twice, held columns the rows four times.
    (cost,) = cost_of(linear(), buffer_bytes=4 * 36)
    assert cost.buffer_bytes == 36 * (8 * 4 + 16 * 2) + min(36 * (8 + 16 * 2), 36 * (16 + 8 * 4))


def test_a_model_that_fits_into_half_of_the_sram_needs_no_dram() -> None:
    assert cost_of(linear(), sram_bytes=2 * 576)[0].dram_bytes == 8 * 64 * 4 + 8 * 16 * 4  # activations do not fit
    assert cost_of(linear(input_bytes=0), sram_bytes=2 * 576)[0].dram_bytes == 0


def test_otherwise_weights_and_cache_come_from_dram_in_every_run() -> None:
    small = linear(input_bytes=0, output_bytes=0)
    (cost,) = cost_of(small, sram_bytes=2 * 575)
    assert cost.dram_bytes == 576
    assert cost.dram_energy_pj == close(576 * 16)
    assert (cost.latency_us, cost.bound) == (close(0.576), "memory")
    (cached,) = cost_of(dataclasses.replace(small, cache_code_bytes=100, cache_scale_bytes=10), sram_bytes=2 * 575)
    assert cached.dram_bytes == 576 + 110


def test_weights_come_again_for_every_half_sram_of_activations() -> None:
    rows = 3 * 32  # of 36 bytes: 3 halves of 1152
    (cost,) = cost_of(linear(m=rows, macs=rows * 64 * 16, input_bytes=0, output_bytes=0), sram_bytes=2 * 575)
    assert cost.dram_bytes == 576 * math.ceil(rows * 36 / 575)


def test_what_comes_from_dram_passes_through_sram() -> None:
    small = linear(input_bytes=0, output_bytes=0)
    (far,), (near,) = cost_of(small, sram_bytes=2 * 575), cost_of(small)
    assert far.sram_bytes == near.sram_bytes + 576


def test_a_node_without_a_product_costs_its_operations_and_bytes() -> None:
    _, cost = cost_of(linear(), softmax())
    assert (cost.cycles, cost.unit, cost.utilization, cost.area_um2) == (13, "", None, 0)
    assert cost.vector_energy_pj == close(200)
    assert (cost.sram_bytes, cost.buffer_bytes) == (160, 0)
    assert cost.sram_energy_pj == close(8 * 160)


def test_a_node_that_does_nothing_waits_for_nothing() -> None:
    _, cost = cost_of(linear(), NodeWork("/view", "Reshape", "movement"))
    assert (cost.latency_us, cost.bound, cost.energy_pj) == (0, "none", 0)


@pytest.mark.parametrize(("b_format", "sums"), [("dint4", 1), ("dint4_b32", 2), ("int8", 1)])
def test_sums_of_integers_are_corrected_and_scaled_by_the_vector_unit(b_format: str, sums: int) -> None:
    (cost,) = cost_of(linear(a_format="int8", b_format=b_format, quantized_format="int8"))
    assert cost.vector_ops == 8 * 64 + 6 * sums * 8 * 16


def test_codes_of_the_other_operand_are_summed_too_if_they_are_no_constants() -> None:
    attention = {"kind": "attention", "weight_code_bytes": 0, "weight_scale_bytes": 0}
    (cost,) = cost_of(linear(a_format="int8", b_format="int8", quantized=0, batch=3, **attention))
    assert cost.vector_ops == 3 * (6 * 8 * 16 + (8 + 16) * 64)


def test_rows_of_integers_are_read_twice_first_for_their_range() -> None:
    once, twice = (
        cost_of(linear(a_format=name, b_format=name, quantized_format=name, quantized=64 * 100))[0]
        for name in ("mxfp4", "int8")
    )
    assert (once.cycles, twice.cycles) == (100, 200)
    rows = {"mxfp4": 34, "int8": 69}
    assert once.sram_bytes == rows["mxfp4"] * (8 + 16 + 8) + 8 * 64 * 4 + 8 * 16 * 4
    assert twice.sram_bytes == rows["int8"] * (8 + 16 + 8) + 2 * 8 * 64 * 4 + 8 * 16 * 4


def test_the_scale_of_a_tensor_is_found_and_applied_by_the_vector_unit() -> None:
    units = {**technology().units, "nvfp4": technology().units["mxfp4"]}
    units["quantize_nvfp4"] = units["quantize_mxfp4"]
    nvfp4 = linear(a_format="nvfp4", b_format="nvfp4", quantized_format="nvfp4")
    (cost,) = estimate(workload(nvfp4), engine(), technology(units=units), tokens=8).nodes
    assert cost.vector_ops == 8 * 64 + 8 * 16


def test_floating_point_runs_on_its_own_array_beside_quantized_products() -> None:
    quantized, head = cost_of(linear(), float_linear())
    assert (quantized.unit, head.unit) == ("amxfp4_tagged", "fp16")
    assert head.cycles == 4 * 8 * (2 + 2)  # tiles of 2 x 2
    assert head.mac_energy_pj == close(8192 * 8)


def test_a_model_in_floating_point_runs_on_the_main_array() -> None:
    (head,) = cost_of(float_linear())
    assert head.cycles == 64


def test_weights_alone_in_four_bits_run_with_floats_on_the_main_array() -> None:
    weight_only = linear(a_format="float16", quantized=0, quantized_format="")
    cost = estimate(workload(weight_only, float_linear()), engine(), technology(), tokens=8)
    assert [node.unit for node in cost.nodes] == ["fp16", "fp16"]
    assert [(use.unit.name, use.count) for use in cost.plan.arrays] == [("fp16", 16)]


def test_the_area_is_that_of_the_arrays_and_quantizers_in_use() -> None:
    cost = estimate(workload(linear(), float_linear(), softmax()), engine(), technology(), tokens=8)
    assert cost.area_um2 == close(16 * 150 + 4 * 800 + 2 * 60)
    assert total(cost).area_um2 == cost.area_um2
    assert cost.nodes[0].area_um2 == close(16 * 150 + 2 * 60)


def test_an_energy_that_is_not_stated_for_the_node_is_absent_and_not_zero() -> None:
    cost = estimate(workload(linear(), softmax()), engine(), technology(node_nm=180), tokens=8)
    assert set(cost.plan.absent) == {"vector", "buffer", "sram"}
    assert "at 180 nm" in cost.plan.absent["sram"]
    whole = total(cost)
    assert (whole.vector_energy_pj, whole.buffer_energy_pj, whole.sram_energy_pj) == (None, None, None)
    stated = whole.mac_energy_pj + whole.quantize_energy_pj + (whole.dram_energy_pj or 0)
    assert whole.energy_pj == close(stated + (whole.leakage_energy_pj or 0))


def test_leakage_is_absent_if_one_unit_does_not_state_it() -> None:
    known = technology()
    units = {**known.units, "mxfp4": dataclasses.replace(known.units["mxfp4"], leakage_uw=None)}
    other = dataclasses.replace(known, units=units)
    mxfp4 = linear("/k", a_format="mxfp4", b_format="mxfp4", quantized_format="mxfp4")
    assert estimate(workload(linear(), mxfp4), engine(), other, tokens=8).nodes[0].leakage_energy_pj is None
    assert estimate(workload(linear()), engine(), other, tokens=8).nodes[0].leakage_energy_pj is not None


def test_the_totals_are_the_sums_of_the_nodes() -> None:
    cost = estimate(workload(linear(), float_linear(), softmax()), engine(sram_bytes=2 * 575), technology(), tokens=8)
    whole = total(cost)
    for field in ("macs", "quantized", "vector_ops", "cycles", "sram_bytes", "dram_bytes", "activation_bytes"):
        assert getattr(whole, field) == sum(getattr(node, field) for node in cost.nodes)
    assert whole.latency_us == close(sum(node.latency_us for node in cost.nodes))
    assert whole.energy_pj == close(sum(node.energy_pj for node in cost.nodes))
    assert whole.energy_pj_per_token == close(whole.energy_pj / 8)
    assert whole.tokens_per_second == close(8e6 / whole.latency_us)
    assert whole.intensity_macs_per_byte == close(whole.macs / whole.dram_bytes)
    assert whole.bound == "memory"


def test_utilization_counts_the_time_that_waits_for_dram() -> None:
    cost = estimate(workload(linear(input_bytes=0, output_bytes=0)), engine(sram_bytes=1150), technology(), tokens=8)
    assert total(cost).utilization == close(8192 / (0.576e-6 * 1e9 * 16 * 32))


def test_a_model_without_a_product_is_an_error() -> None:
    with pytest.raises(CostModelError, match="no node of the model multiplies"):
        cost_of(softmax())


def test_a_missing_unit_is_an_error_that_names_the_node() -> None:
    with pytest.raises(CostModelError, match="MatMulBlock /q: needs the unit 'nvfp4'"):
        cost_of(linear(a_format="nvfp4", b_format="nvfp4"))


def test_an_operand_of_another_type_is_an_error() -> None:
    with pytest.raises(CostModelError, match="MatMulBlock /q: no unit takes an operand of type 'int64'"):
        cost_of(linear(a_format="int64"))


def test_a_clock_that_the_units_do_not_reach_is_an_error() -> None:
    with pytest.raises(CostModelError, match=r"clock_hz is 2e[+]09, but the units of technology 'round'"):
        cost_of(linear(), clock_hz=2e9)


def test_a_slower_clock_takes_longer_and_leaks_more() -> None:
    (cost,) = cost_of(linear(), clock_hz=0.5e9)
    assert cost.latency_us == close(0.128)
    assert cost.leakage_energy_pj == close(16.5 * 0.128)


def test_an_engine_of_one_unit_takes_only_the_steps_of_its_sums() -> None:
    (cost,) = cost_of(linear(), array=Array(1, 1))
    assert cost.cycles == 8 * 16 * 2
    assert cost.utilization == 1


def test_floats_are_kept_in_the_bits_of_the_engine() -> None:
    head = float_linear(a_format="float32", b_format="float32", weight_code_bytes=4096, input_bytes=2048)
    quantize = NodeWork("/quantize", "QuantizeBlock", "quantize", quantized=64, input_bytes=256, output_bytes=36)
    kept = as_kept(workload(head, linear(input_bytes=2048 + 100), softmax(), quantize), 4, 2).nodes
    assert (kept[0].a_format, kept[0].b_format, kept[0].weight_code_bytes) == ("float16", "float16", 2048)
    assert (kept[1].input_bytes, kept[1].output_bytes, kept[1].weight_code_bytes) == (1024 + 100, 256, 512)
    assert (kept[2].input_bytes, kept[2].output_bytes) == (40, 40)
    assert (kept[3].input_bytes, kept[3].output_bytes) == (128, 36)


def test_floats_of_a_model_that_has_no_more_bits_stay_as_they_are() -> None:
    work = workload(float_linear(), softmax())
    assert as_kept(work, 2, 4) == as_kept(work, 2, 2) == work
