"""Engines, unit costs and work in round numbers, so that tests of the cost model can be computed by hand."""

import dataclasses
from pathlib import Path
from typing import Any

from mxcompile.cost.engine import Array, Constant, Engine
from mxcompile.cost.unit_cost import Technology, UnitCost
from mxcompile.cost.workload import NodeWork, Workload

NODE_NM = 45
CLOCK_HZ = 1e9
UNITS = {
    # area, energy of an operation, leakage
    "fp16": (800.0, 8.0, 4.0),
    "int8_int8": (300.0, 3.0, 2.0),
    "dint4_int8": (200.0, 2.0, 1.0),
    "mxfp4": (100.0, 1.0, 0.5),
    "fp4_e5m2": (110.0, 1.25, 0.5),
    "amxfp4_tagged": (150.0, 1.5, 1.0),
}
QUANTIZERS = {
    "quantize_amxfp4": (60.0, 0.5, 0.25),
    "quantize_mxfp4": (40.0, 0.25, 0.25),
    "quantize_int8": (50.0, 0.75, 0.25),
}


def technology(**changes: Any) -> Technology:
    """Unit costs of 32 lanes at CLOCK_HZ."""
    units = {
        name: UnitCost(name, kind, "measured", lanes=32, area_um2=area, energy_pj_per_op=energy, leakage_uw=leakage)
        for kind, rows in (("dot", UNITS), ("quantize", QUANTIZERS))
        for name, (area, energy, leakage) in rows.items()
    }
    made = Technology("round", NODE_NM, CLOCK_HZ, "measured", "a test", units=units)
    return dataclasses.replace(made, **changes)


def technology_file(folder: Path) -> Path:
    """`technology` as a file."""
    lines = [
        *("[technology]", 'name = "round"', f"node_nm = {NODE_NM}", f"clock_hz = {CLOCK_HZ}", 'status = "measured"'),
        *('source = "a test"', 'tools = { yosys = "0.0" }'),
    ]
    for name, unit in technology().units.items():
        lines += ["[[unit]]", f'name = "{name}"', f'kind = "{unit.kind}"', 'status = "measured"', "lanes = 32"]
        lines += [f"{key} = {getattr(unit, key)}" for key in ("area_um2", "energy_pj_per_op", "leakage_uw")]
    path = folder / "round.toml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def engine(**changes: Any) -> Engine:
    """An engine of 4 x 4 units, 2 x 2 for floating point, 1 kB/us DRAM, energies of 2, 4, 8 and 16."""
    constants = (
        Constant("vector_energy_pj_per_op", 2.0, "assumed", "a test", NODE_NM),
        Constant("buffer_energy_pj_per_byte", 4.0, "published", "a test", NODE_NM),
        Constant("sram_energy_pj_per_byte", 8.0, "published", "a test", NODE_NM),
        Constant("dram_energy_pj_per_byte", 16.0, "published", "a test"),
    )
    made = Engine(
        name="small",
        description="an engine for tests",
        status="assumed",
        source="a test",
        float_bits=16,
        array=Array(4, 4),
        float_array=Array(2, 2),
        quantizers=2,
        vector_lanes=8,
        buffer_bytes=1024,
        sram_bytes=1 << 16,
        dram_bandwidth_bytes_per_s=1e9,
        dram_technology="none",
        clock_hz=None,
        units={},
        constants=constants,
    )
    return dataclasses.replace(made, **changes)


def linear(name: str = "/q", **changes: Any) -> NodeWork:
    """A product of 8 rows of 64 with 16 columns of constants in amxfp4, quantized on the fly.

    Codes of a row take 32 bytes, its scales 4.
    """
    made = NodeWork(
        name=name,
        op_type="MatMulBlock",
        kind="linear",
        a_format="amxfp4",
        b_format="amxfp4",
        batch=1,
        m=8,
        k=64,
        n=16,
        macs=8 * 64 * 16,
        quantized=8 * 64,
        quantized_format="amxfp4",
        weight_code_bytes=16 * 32,
        weight_scale_bytes=16 * 4,
        input_bytes=8 * 64 * 4,
        output_bytes=8 * 16 * 4,
    )
    return dataclasses.replace(made, **changes)


def float_linear(name: str = "/head", **changes: Any) -> NodeWork:
    """The same product in float16, nothing quantized."""
    floats = {"a_format": "float16", "b_format": "float16", "quantized": 0, "quantized_format": ""}
    weights = {"op_type": "MatMul", "weight_code_bytes": 16 * 64 * 2, "weight_scale_bytes": 0}
    return dataclasses.replace(linear(name), **{**floats, **weights, **changes})


def softmax(name: str = "/softmax", **changes: Any) -> NodeWork:
    """An operation of the vector unit."""
    made = NodeWork(name, "Softmax", "softmax", vector_ops=100, input_bytes=80, output_bytes=80)
    return dataclasses.replace(made, **changes)


def workload(*nodes: NodeWork) -> Workload:
    """The work of these nodes, all sizes given."""
    return Workload(nodes, (), (), {}, {})
