"""docs/ is true: formats.md in its sections, tables, bytes and known answers; all pages in pictures and links."""

import re
from pathlib import Path

import numpy as np
import pytest

from mxcompile.formats import FORMATS, get_format
from mxcompile.formats.amxint import AMXINT4
from mxcompile.formats.base import Format
from mxcompile.formats.block_scaled import BlockScaled
from mxcompile.formats.elements import E2M1, E2M3, E3M2, E4M3, E5M2, INT8, Rounding, e8m0_decode_table
from mxcompile.formats.integer import AsymmetricInteger
from mxcompile.formats.nvfp4 import NVFP4, NVFP4_FORMAT

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PAGE = (ROOT / "docs" / "formats.md").read_text("utf-8")
HEADING = re.compile(r"^##+ (.+)\n((?:(?!^##).*\n)*)", re.MULTILINE)
SECTIONS = {
    re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-"): text for title, text in HEADING.findall(PAGE)
}
"""Text below each heading, by the anchor that links to it."""

MAXIMUM_IMAGE_BYTES = 600_000  # of all pictures together: they are cloned with the repository
ELEMENTS = {
    "e2m1": E2M1.decode_table,
    "e3m2": E3M2.decode_table,
    "e2m3": E2M3.decode_table,
    "e4m3": E4M3.decode_table,
    "e5m2": E5M2.decode_table,
    "int8-element": INT8.decode_table,
    "e8m0": e8m0_decode_table(),
}
INTEGERS = [name for name, fmt in FORMATS.items() if isinstance(fmt, AsymmetricInteger)]
FLOATS = [name for name, fmt in FORMATS.items() if isinstance(fmt, BlockScaled | NVFP4)]
formats = pytest.mark.parametrize("name", FORMATS)


def fact(name: str, row: str) -> str:
    """A cell of the table at the top of a format's section."""
    (cell,) = re.findall(rf"^\| {row} \| (.+) \|$", SECTIONS[name], re.MULTILINE)
    return cell


def value_table(text: str, **variables: float) -> np.ndarray:
    """The values of a section's table in the order of their codes, from 0 on, as float32."""
    values = []
    for first, last, expression in re.findall(r"^\| (\d+)(?: to (\d+))? \| (.+) \|$", text, re.MULTILINE):
        assert int(first) == len(values)
        for code in range(int(first), int(last or first) + 1):
            known = {"NaN": np.nan, "code": code, **variables}
            values.append(eval(expression.replace("^", "**"), {"__builtins__": {}}, known))
    for first, cells in re.findall(r"^\| 0x([0-9A-F]+) \| (.+) \|$", text, re.MULTILINE):
        assert int(first, 16) == len(values)
        values += [float(cell) for cell in cells.split(" | ")]
    return np.array(values, np.float32)


def scale_bytes(fmt: Format, values: list[float]) -> set[int]:
    """The scale bytes of a single block."""
    return set(fmt.quantize(np.array(values, np.float32)).scales[-1].tolist())


def test_every_format_has_a_section_in_the_order_of_the_table():
    assert re.findall(r"^## `(\w+)`$", PAGE, re.MULTILINE) == list(FORMATS)


@formats
def test_bits_per_element_are_those_of_the_code(name: str):
    assert float(fact(name, "bits per element")) == FORMATS[name].bits_per_element


@formats
def test_bits_of_other_block_sizes_are_those_of_the_code(name: str):
    fmt, cell = FORMATS[name], fact(name, "block sizes")
    default, others = re.match(r"whole rows|\d+", cell), re.findall(r"(\d+) \(([\d.]+) bits\)", cell)
    assert default
    assert default.group() == (str(fmt.block_size) if fmt.block_size else "whole rows")
    assert [int(size) for size, _ in others] == [size for size in fmt.block_sizes if size != fmt.block_size]
    for size, bits in others:
        assert float(bits) == get_format(f"{name}_b{size}").bits_per_element


@formats
def test_an_element_has_the_width_and_rounding_of_the_code(name: str):
    fmt, cell = FORMATS[name], fact(name, "element")
    away = fmt.rounding is Rounding.TIES_AWAY if isinstance(fmt, BlockScaled) else isinstance(fmt, AMXINT4)
    assert f"{fmt.element.bits} bits" in cell
    assert cell.endswith("; ties away" if away else "; ties to even")


@pytest.mark.parametrize("name", FLOATS)
def test_an_elements_link_leads_to_its_values(name: str):
    (anchor,) = re.findall(r"\]\(#([\w-]+)\)", fact(name, "element"))
    np.testing.assert_array_equal(ELEMENTS[anchor], FORMATS[name].element.decode_table)


@pytest.mark.parametrize("anchor", ELEMENTS)
def test_a_value_table_is_the_elements_decode_table(anchor: str):
    values, table = value_table(SECTIONS[anchor]), ELEMENTS[anchor]
    if len(values) < len(table):  # the sign bit on top negates
        assert f"Sign bit 0x{len(values):02X}" in SECTIONS[anchor]
        values = np.concatenate([values, -values])
    np.testing.assert_array_equal(values, table)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("zero_point", [0, 2, 5])
def test_a_value_table_of_integers_is_what_they_decode_to(name: str, zero_point: int):
    fmt = FORMATS[name]
    one = np.array([0, 0, 0x80, 0x3F, zero_point], np.uint8)[None]
    codes = np.arange(1 << fmt.element.bits).astype(np.uint8)
    np.testing.assert_array_equal(value_table(SECTIONS[name], z=zero_point), fmt.decode_rows(codes, one))


def test_the_value_table_of_amxint4_is_what_it_decodes_to():
    fmt, codes = FORMATS["amxint4"], np.arange(256).astype(np.uint8)
    pair = np.array([0.25, -11], "<f4").view(np.uint8)
    decoded = fmt.decode_rows(codes, np.tile(pair, (256 // fmt.block_size, 1)))
    np.testing.assert_array_equal(value_table(SECTIONS["amxint4"], s=0.25, shift=-11), decoded)


def test_every_value_table_is_compared():
    head = re.compile(r"^\| codes? \| (?:value|\+0)", re.MULTILINE)
    assert {anchor for anchor, text in SECTIONS.items() if head.search(text)} == {*ELEMENTS, *INTEGERS, "amxint4"}


@pytest.mark.parametrize("name", FLOATS)
def test_scale_bytes_of_special_blocks_are_those_of_the_code(name: str):
    said = dict(
        re.findall(r"(NaN or Inf|[Aa]ll-zero)[^.:]*: [^.;\d]*?(?:[\d.^-]+ \(byte )?(0x\w\w|0)\b", SECTIONS[name])
    )
    said = {key.lower(): int(byte, 0) for key, byte in said.items()}
    fmt = FORMATS[name]
    assert said == {
        "nan or inf": scale_bytes(fmt, [1, np.nan]).pop(),
        "all-zero": scale_bytes(fmt, [0, 0]).pop(),
    }
    assert len(scale_bytes(fmt, [1, np.inf]) | scale_bytes(fmt, [-np.inf, 1])) == 1


def test_the_known_answers_are_what_the_formats_give():
    text = SECTIONS["the-same-six-numbers-in-every-format"]
    (numbers,) = re.findall(r"^x = \[(.+)\]", text, re.MULTILINE)
    x = np.array(numbers.split(", "), np.float32)
    rows = re.findall(r"^\| `(\w+)` \| ([\w ]+) \| ([\w ]+) \| (.+) \|$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == list(FORMATS)
    for name, codes, scales, decoded in rows:
        packed = FORMATS[name].quantize(x)
        assert (bytes.fromhex(codes), bytes.fromhex(scales)) == (packed.codes.tobytes(), packed.scales.tobytes()), name
        np.testing.assert_array_equal(np.array(decoded.split(", "), np.float32), FORMATS[name].dequantize(packed))


def test_the_largest_decoded_magnitudes_are_reached_and_not_passed():
    for name in ("amxfp4", "amxfp4_e4m3"):
        largest = float(fact(name, "largest decoded magnitude").rpartition("= ")[2])
        assert FORMATS[name].fake_quantize(np.float32([3e38, -3e38])).tolist() == [largest, -largest]


def test_the_largest_nvfp4_block_has_the_largest_scale():
    assert scale_bytes(NVFP4_FORMAT, [6.5, -1]) == {E4M3.values.index(448)}


@pytest.mark.parametrize("name", [name for name in FLOATS if "Overflow" in SECTIONS[name]])
def test_overflow_begins_where_the_page_says(name: str):
    (factor, power) = re.findall(r"from ([\d.]+) \* 2\^(\d+) up", SECTIONS[name])[0]
    first = np.float32(float(factor) * 2.0 ** int(power))
    assert np.isinf(FORMATS[name].fake_quantize(first[None]))
    assert np.isfinite(FORMATS[name].fake_quantize(np.nextafter(first, np.float32(0))[None]))


@pytest.mark.parametrize("name", [name for name in FLOATS if "Overflow" not in SECTIONS[name]])
def test_nothing_overflows_where_the_page_names_no_overflow(name: str):
    largest = np.finfo(np.float32).max
    assert np.isfinite(FORMATS[name].fake_quantize(np.array([largest, -largest]))).all()


def test_every_image_exists_and_is_shown():
    pages = [page.read_text("utf-8") for page in (ROOT / "docs").glob("*.md")]
    shown = [name for page in pages for name in re.findall(r"!\[.+?\]\(images/([\w-]+\.png)\)", page)]
    assert sorted(shown) == sorted(path.name for path in IMAGES.iterdir())
    assert sum(path.stat().st_size for path in IMAGES.iterdir()) <= MAXIMUM_IMAGE_BYTES


def test_every_link_leads_to_a_section():
    for anchor in re.findall(r"\]\(#([\w-]+)\)", PAGE):
        assert anchor in SECTIONS, anchor


def test_every_named_file_exists():
    names = re.findall(r"`((?:mxcompile|custom_ops|tests)/[\w./]*)`", PAGE) + re.findall(r"python (docs/\w+\.py)", PAGE)
    assert names
    for name in names:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_links_between_pages_lead_to_headings(page: Path):
    text = page.read_text("utf-8")
    for target, anchor in re.findall(r"(?<!!)\[[^\]]+\]\(([\w./-]*)(?:#([\w-]+))?\)", text):
        other = page.parent / target if target else page
        assert other.is_file(), target
        headings = [title for title, _ in HEADING.findall(other.read_text("utf-8"))]
        anchors = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in headings}
        assert not anchor or anchor in anchors, f"{target}#{anchor}"
