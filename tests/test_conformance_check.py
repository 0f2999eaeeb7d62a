"""Another tool's output against ours: what is right passes, and each mistake is found and named."""

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mxcompile import conformance, conformance_check, vectors
from mxcompile.errors import FormatError
from mxcompile.formats import FORMATS, Format, get_format
from mxcompile.formats.amxfp4 import AMXFP4
from mxcompile.formats.base import Float32, Uint8
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.elements import Rounding
from mxcompile.formats.mxfp import MXFP4, MXINT8
from mxcompile.formats.scales import FloatScale, PowerOfTwo, ScaleRule

GOLDEN = Path(__file__).parent / "golden"

NAMES = (*FORMATS, "amxfp4_b16", "mxfp4_b64", "amxint4_b64", "dint4_b32", "int8_b128")

Array = np.ndarray[Any, Any]
Change = Callable[[Array], None]


def arrays_of(name: str) -> dict[str, Any]:
    return conformance.vector_arrays(get_format(name))


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_our_own_vectors_check_clean(tmp_path: Path, name: str) -> None:
    conformance.write_vectors(tmp_path / "out", [name])
    report = conformance_check.check_vectors(tmp_path / "out" / f"{name}.npz")
    assert report.format == name
    assert not report.failed
    assert len(report.arrays) == 4 * len(vectors.INPUTS) + 2 * len(vectors.DOT_INPUTS)
    assert all(array.compared for array in report.arrays)


def test_the_authors_emulator_conforms(tmp_path: Path) -> None:
    inputs, encoded = np.load(GOLDEN / "inputs.npz"), np.load(GOLDEN / "encoded_amxfp4_b32.npz")
    decoded = np.load(GOLDEN / "golden_fp4_e2m1_asym_m152.npz")
    arrays = {}
    for name in inputs.files:
        k = inputs[name].shape[-1]
        scales = np.stack([encoded[f"{name}__{side}_e5m2"] for side in ("pos", "neg")], axis=-1)
        arrays[f"{name}__x"] = inputs[name].reshape(-1, k)
        arrays[f"{name}__codes"] = encoded[f"{name}__codes"].reshape(-1, k)
        arrays[f"{name}__scales"] = scales.reshape(-1, *scales.shape[-2:])
        arrays[f"{name}__decoded"] = decoded[f"{name}__b32__nearest"].reshape(-1, k)
    report = conformance_check.check_vectors(saved(tmp_path / "emulator.npz", **arrays), "amxfp4")
    assert len(report.arrays) == 3 * len(inputs.files)
    assert report.failed == []


def set_at(index: tuple[int, ...], value: Any) -> Change:
    def change(array: Array) -> None:
        array[index] = value

    return change


CORRUPTIONS = {
    "normal__codes": (set_at((1, 40), 0x1F), 1, None),
    "normal__packed": (set_at((2, 63), 0xFF), 3, None),
    "normal__scales": (set_at((0, 2, 1), 0x7F), 2, None),
    "normal__decoded": (set_at((2, 5), 1e9), 0, 1e9),
    "normal__dot_sums": (set_at((4, 3, 2), 77), 3, 77),
    "normal__dot": (set_at((5,), -1.5), None, -1.5),
}
"""For each kind of array a change, the block in which it is, and the value that the report must show."""


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_single_wrong_number_is_found_and_named(tmp_path: Path, name: str) -> None:
    change, block, value = CORRUPTIONS[name]
    arrays = arrays_of("amxfp4")
    original = arrays[name].copy()
    change(arrays[name])
    report = conformance_check.check_vectors(saved(tmp_path / "theirs.npz", **arrays))
    (failed,) = report.failed
    assert (failed.name, failed.differing, failed.compared) == (name, 1, original.size)
    assert failed.first is not None
    assert failed.first.index == tuple(np.argwhere(arrays[name] != original)[0].tolist())
    assert failed.first.block == block
    if value is not None:
        assert failed.first.theirs == value


def test_differences_are_told_in_values_and_bits(tmp_path: Path) -> None:
    x = np.zeros((1, 33), np.float32)
    x[0, :4] = 6, -3, 1, 0.5  # scales 1 and 1/2
    theirs = {
        "a__x": x,
        "a__codes": np.array([[7, 15, 2, 0] + [0] * 29], np.uint8),
        "a__scales": np.array([[[0x3C, 0x38], [0x3C, 0x7F]]], np.uint8),
        "a__decoded": np.pad(np.array([[6, -3, 1, 0.25]], np.float32), [(0, 0), (0, 29)]),
    }
    report = conformance_check.check_vectors(saved(tmp_path / "a.npz", **theirs), "amxfp4")
    assert [str(array.first) for array in report.arrays] == [
        "[0, 3] in block 0: ours 0.5 = 0b0001, theirs 0.0 = 0b0000",
        "[0, 1, 1] in block 1: ours 1.0 = 0b00111100, theirs NaN = 0b01111111",
        "[0, 3] in block 0: ours 0.5 = 0x3F000000, theirs 0.25 = 0x3E800000",
    ]
    assert str(report).endswith(
        "a.npz: 3 of 3 arrays differ from amxfp4; first a__codes[0, 3] in block 0: ours 0.5 = 0b0001, "
        "theirs 0.0 = 0b0000"
    )


@pytest.mark.parametrize(
    ("name", "index", "block"), [("nvfp4", (0, 0, 0), None), ("nvfp4", (1, 6, 0), 2), ("dint4", (2, 0, 4), 0)]
)
def test_scale_bytes_of_every_layout_are_found(
    tmp_path: Path, name: str, index: tuple[int, ...], block: int | None
) -> None:
    arrays = arrays_of(name)
    ours = int(arrays["normal__scales"][index])
    arrays["normal__scales"][index] ^= 1
    (failed,) = conformance_check.check_vectors(saved(tmp_path / "theirs.npz", **arrays)).failed
    assert failed.first == conformance_check.Difference(
        index, block, ours, ours ^ 1, f"0b{ours:08b}", f"0b{ours ^ 1:08b}"
    )


def test_decoded_zeros_have_no_sign_and_nans_no_payload(tmp_path: Path) -> None:
    arrays = arrays_of("amxfp4")
    zeros, nans = arrays["zeros__decoded"], arrays["nonfinite__decoded"]
    zeros[zeros == 0] *= -1
    nans[np.isnan(nans)] = np.array(0xFFC12345, np.uint32).view(np.float32)
    assert not conformance_check.check_vectors(saved(tmp_path / "theirs.npz", **arrays)).failed
    nans[0, 32] = 0
    (failed,) = conformance_check.check_vectors(saved(tmp_path / "theirs.npz", **arrays)).failed
    assert failed.first is not None
    assert (failed.name, failed.first.ours, failed.first.block) == ("nonfinite__decoded", None, 1)


def test_a_code_for_negative_zero_is_found(tmp_path: Path) -> None:
    arrays = arrays_of("amxfp4")
    arrays["zeros__codes"][1, 40] = 0b1000
    (failed,) = conformance_check.check_vectors(saved(tmp_path / "theirs.npz", **arrays)).failed
    assert str(failed.first) == "[1, 40] in block 1: ours 0.0 = 0b0000, theirs -0.0 = 0b1000"


@pytest.mark.parametrize("name", FORMATS)
def test_dot_products_may_be_summed_in_float64_but_not_in_float32(tmp_path: Path, name: str) -> None:
    arrays = arrays_of(name)
    fmt = FORMATS[name]
    rows = vectors.factors(fmt, arrays["heavy_tailed__codes"], arrays["heavy_tailed__scales"])
    pieces = rows.integers.astype(np.float64) * rows.scales[..., None].astype(np.float64) * vectors.unit(fmt)
    values = pieces.sum(axis=2).reshape(len(pieces), -1)[:, ::-1]
    a, w = arrays["heavy_tailed__dot_a"], arrays["heavy_tailed__dot_w"]
    given = {"dot_a": a[::-1], "dot_w": w[::-1]}
    theirs = {f"heavy_tailed__{side}": array for side, array in given.items()}
    theirs["heavy_tailed__dot"] = (values[a] * values[w]).sum(axis=1)[::-1]
    report = conformance_check.check_vectors(saved(tmp_path / "theirs.npz", **theirs), name)
    assert [array.name for array in report.arrays] == ["heavy_tailed__dot"]
    assert not report.failed
    theirs["heavy_tailed__dot"] = theirs["heavy_tailed__dot"] * (1 + 2.0**-24)
    assert conformance_check.check_vectors(saved(tmp_path / "theirs.npz", **theirs), name).failed


class ByReciprocal(BlockScaled):
    """Multiplies elements by the reciprocal of the scale."""

    def encode_blocks(self, blocks: Float32) -> tuple[Uint8, Uint8]:
        _, scales = super().encode_blocks(blocks)
        values = self.scale.decode_table[scales]
        side = np.where(blocks > 0, values[..., :1], values[..., -1:])
        x = np.where(np.isfinite(blocks) & np.isfinite(side), blocks, np.float32(0))
        inverse = np.float32(1) / np.where((side > 0) & np.isfinite(side), side, np.float32(np.inf))
        return self.element.encode_signed(x * inverse, self.rounding), scales


class ScaleByReciprocal(FloatScale):
    """Multiplies the extreme by 1/6."""

    def encode(self, extreme: Float32) -> Uint8:
        return self.type.encode(np.where(extreme > 0, extreme * np.float32(1 / 6), np.float32(1)))


class EvenScale(FloatScale):
    """Rounds ties of the scale to even."""

    def encode(self, extreme: Float32) -> Uint8:
        raw = extreme / np.float32(6)
        return self.type.encode(np.where(raw > 0, raw, np.float32(1)), Rounding.TIES_TO_EVEN)


def shallow(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}


WRONG: dict[str, tuple[str, Format]] = {
    "ties to even": ("amxfp4", dataclasses.replace(AMXFP4, rounding=Rounding.TIES_TO_EVEN)),
    "ties to even in eight bits": ("mxint8", dataclasses.replace(MXINT8, rounding=Rounding.TIES_TO_EVEN)),
    "NaN byte": ("amxfp4", dataclasses.replace(AMXFP4, scale=dataclasses.replace(AMXFP4.scale, nan_byte=0x7E))),
    "no scale of 0": ("amxfp4", dataclasses.replace(AMXFP4, scale=dataclasses.replace(AMXFP4.scale, zero_is_one=True))),
    **{
        f"rule {rule.name}": ("mxfp4", dataclasses.replace(MXFP4, scale=PowerOfTwo(MXFP4.element, rule)))
        for rule in (ScaleRule.EVEN, ScaleRule.CEIL, ScaleRule.RCEIL)
    },
    "element by reciprocal": ("amxfp4", ByReciprocal(**shallow(AMXFP4))),
    "scale by reciprocal": ("amxfp4", dataclasses.replace(AMXFP4, scale=ScaleByReciprocal(**shallow(AMXFP4.scale)))),
    "scale to even": ("amxfp4", dataclasses.replace(AMXFP4, scale=EvenScale(**shallow(AMXFP4.scale)))),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_format_with_one_wrong_rule_does_not_conform(tmp_path: Path, mistake: str) -> None:
    name, wrong = WRONG[mistake]
    theirs = {f"{key}__codes": wrong.encode_rows(x)[0] for key, x in vectors.inputs(FORMATS[name]).items()}
    theirs |= {f"{key}__scales": wrong.encode_rows(x)[1] for key, x in vectors.inputs(FORMATS[name]).items()}
    assert conformance_check.check_vectors(saved(tmp_path / "theirs.npz", **theirs), name).failed


def test_a_part_is_enough_and_our_inputs_are_the_default(tmp_path: Path) -> None:
    codes = arrays_of("mxfp4")["ties__codes"]
    path = saved(tmp_path / "mxfp4.npz", ties__codes=codes, made_by=np.array("rtl"))
    report = conformance_check.check_vectors(path)
    assert (report.format, report.ignored) == ("mxfp4", ("made_by",))
    assert [array.name for array in report.arrays] == ["ties__codes"]


def test_the_format_is_named_by_option_array_or_file(tmp_path: Path) -> None:
    codes = arrays_of("mxfp4")["ties__codes"]
    path = saved(tmp_path / "amxfp4.npz", ties__codes=codes, format=np.array("int8"))
    with pytest.raises(FormatError, match="ties__codes: is uint8"):
        conformance_check.check_vectors(path)
    assert not conformance_check.check_vectors(path, "mxfp4").failed
    with pytest.raises(FormatError, match="unknown format 'fp4'"):
        conformance_check.check_vectors(path, "fp4")
    with pytest.raises(FormatError, match="its name says 'rtl', give --format: unknown format"):
        conformance_check.check_vectors(saved(tmp_path / "rtl.npz", ties__codes=codes))
    with pytest.raises(FormatError, match="its array `format` says 'fp4', give --format"):
        conformance_check.check_vectors(saved(tmp_path / "rtl.npz", ties__codes=codes, format=np.array("fp4")))


U8, F32 = np.zeros((3, 128), np.uint8), np.zeros((3, 128), np.float32)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "has nothing to compare; arrays have names such as normal__codes"),
    "inputs only": ({"a__x": F32}, "has nothing to compare"),
    "name": ({"normal__code": U8}, r"normal__code: is no known array; allowed are <input>__ and x, codes"),
    "no input": ({"mine__codes": U8}, r"mine__x is missing, and mine is none of our inputs: normal, "),
    "dtype": ({"normal__codes": U8.astype(int)}, r"normal__codes: is int64 \[3, 128\]; uint8 \[rows, k\], here"),
    "shape": ({"normal__decoded": F32[:2]}, r"normal__decoded: is float32 \[2, 128\]; .* here \[3, 128\] is expected"),
    "byte order": ({"normal__decoded": F32.astype(">f4")}, r"normal__decoded: is >f4"),
    "x dtype": ({"a__x": F32.astype(float), "a__codes": U8}, r"a__x: is float64 \[3, 128\]; float32 \[rows, k\]"),
    "x rank": ({"a__x": F32[0], "a__codes": U8}, r"a__x: is float32 \[128\]"),
    "x empty": ({"a__x": F32[:0], "a__codes": U8[:0]}, r"a__x: is float32 \[0, 128\]; .*not empty is expected"),
    "pair": ({"normal__dot_a": np.array([0]), "normal__dot": np.zeros(1)}, "normal__dot_w: is missing"),
    "pair's type": (
        {"normal__dot_a": np.array([0.0]), "normal__dot_w": np.array([0]), "normal__dot": np.zeros(1)},
        r"normal__dot_a: is float64 \[1\]",
    ),
    "pair's row": (
        {"normal__dot_a": np.array([0]), "normal__dot_w": np.array([3]), "normal__dot": np.zeros(1)},
        r"normal__dot_w: is int64 \[1\]; .*rows from 0 to 2 is expected",
    ),
    "pickle": ({"normal__codes": np.array([None])}, "cannot be read as .npz: Object arrays cannot be loaded"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_file_that_cannot_be_compared_is_an_error(tmp_path: Path, mistake: str) -> None:
    arrays, message = BAD[mistake]
    with pytest.raises(FormatError, match=message):
        conformance_check.check_vectors(saved(tmp_path / "amxfp4.npz", **arrays))


def test_files_that_are_no_npz_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "amxfp4.npz"
    with pytest.raises(FormatError, match=r"amxfp4.npz: cannot be read as .npz: No such file"):
        conformance_check.check_vectors(path)
    with pytest.raises(FormatError, match=r"cannot be read as .npz: Is a directory"):
        conformance_check.check_vectors(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("normal__codes.npy", "raw")
    with pytest.raises(FormatError, match=r"normal__codes: is \|S3 "):
        conformance_check.check_vectors(path)
    path.write_text("no zip")
    with pytest.raises(FormatError, match=r"amxfp4.npz: is no .npz file"):
        conformance_check.check_vectors(path)
    data = bytearray(saved(path, normal__codes=U8).read_bytes())
    data[200:220] = bytes(range(20))
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"amxfp4.npz: cannot be read as .npz: "):
        conformance_check.check_vectors(path)
