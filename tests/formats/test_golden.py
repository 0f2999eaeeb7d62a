"""Every format that the AMXFP4 authors' emulator has, against its vectors, bit for bit."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mxcompile.formats import get_format
from mxcompile.formats.elements import Rounding

GOLDEN = Path(__file__).parents[1] / "golden"
INPUTS = np.load(GOLDEN / "inputs.npz")
FILES = {
    "amxfp4": "fp4_e2m1_asym_m152",
    "amxfp4_pot": "fp4_e2m1_asym_m0",
    "amxfp4_pot_r": "fp4_e2m1_asym_m3",
    "amxfp4_e4m3": "fp4_e2m1_asym_m143",
    "mxfp4": "fp4_e2m1_m0",
    "mxfp4_even": "fp4_e2m1_m3",
    "mxfp6_e3m2": "fp6_e3m2_m0",
    "mxfp6_e2m3": "fp6_e2m3_m0",
    "mxfp8_e4m3": "fp8_e4m3_m0",
    "mxfp8_e5m2": "fp8_e5m2_m0",
    "mxint8": "int8_m0",
    "amxint4": "int4_asym_m2",
}
VECTORS = {name: np.load(GOLDEN / f"golden_{file}.npz") for name, file in FILES.items()}
CASES = [(name, key) for name, vectors in VECTORS.items() for key in vectors.files]


@pytest.mark.parametrize(("name", "key"), CASES)
def test_decoded_values_equal_the_emulator(name: str, key: str):
    source, block, rounding = key.rsplit("__", 2)
    fmt = get_format(f"{name}_{block}")
    if rounding == "even":
        fmt = dataclasses.replace(fmt, rounding=Rounding.TIES_TO_EVEN)
    np.testing.assert_array_equal(fmt.fake_quantize(INPUTS[source]), VECTORS[name][key])
