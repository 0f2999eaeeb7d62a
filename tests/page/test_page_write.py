"""Writing a report page: whole or not at all, small, with nothing from outside."""

import dataclasses
import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path

import page_models
import pytest

from mxcompile.errors import ConfigError, ExportError
from mxcompile.page.content import Page, Table
from mxcompile.page.render import MAXIMUM_BYTES, to_html
from mxcompile.page.write import check_page, write_page

PAGE = page_models.page()
LIBRARY = (
    "/**\n* plotly.js v9.8.7\n* Copyright 2012-2026, Plotly, Inc.\n* Licensed under the MIT license\n*/\n" + "x" * 100
)


class Elements(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if plotly were installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
def test_check_names_what_stands_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report\.txt: a report is one HTML file.*ends with \.html"):
        check_page(tmp_path / "report.txt")
    with pytest.raises(ExportError, match=r"missing/report\.html: there is no folder .*missing; create it first"):
        check_page(tmp_path / "missing" / "report.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ExportError, match="is a folder, not a file"):
        check_page(tmp_path / "folder.html", force=True)


@pytest.mark.usefixtures("installed")
def test_existing_file_is_replaced_by_force_only(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    check_page(file)
    file.write_text("mine", "utf-8")
    with pytest.raises(ExportError, match="exists already; add --force"):
        check_page(str(file))
    check_page(file, force=True)
    assert file.read_text("utf-8") == "mine"


def test_missing_library_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"needs plotly; run pip install 'mxcompile\[report\]'"):
        check_page(tmp_path / "report.html")


def test_elements_are_balanced_and_nothing_is_fetched() -> None:
    html = to_html(PAGE, LIBRARY)
    elements = Elements(html)
    assert elements.open == []
    links = [value for name, value in elements.attributes if name in ("href", "src", "srcset", "action", "poster")]
    assert links == ["#results", "#pareto", "#graph", "#nodes", "#settings", "#provenance"]
    assert "@import" not in html
    assert "url(" not in html
    policy = dict(re.findall(r"([a-z]+-src) ([^;\"]+)", html))
    assert policy == {
        **{"default-src": "'none'", "script-src": "'unsafe-inline'"},
        **{"style-src": "'unsafe-inline'", "img-src": "data: blob:"},
    }


def test_ids_are_unique_and_references_resolve() -> None:
    attributes = Elements(to_html(PAGE, LIBRARY)).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for name, value in attributes if name == "aria-describedby"} <= set(ids)


def test_texts_of_the_page_are_no_markup() -> None:
    name = page_models.HOSTILE
    page = Page(name, name, {name: name}, (), {name: name}, {name: name}, ())
    html = to_html(page, LIBRARY)
    assert "alert(1)</script>" not in html
    assert html.count("&lt;script&gt;alert(1)") == 9


def test_columns_of_figures_are_read_from_the_right_and_words_from_the_left() -> None:
    rows = (("a", "0.5", "-1", "<0.1%", "good", "-"), ("b", "-", "", "~3", "poor", ""))
    table = Table("Some <figures>", ("name", "x", "y", "z", "verdict", ""), rows, "Read <this>.")
    html = to_html(dataclasses.replace(PAGE, summary=(table,), points=(), variants=()), LIBRARY)
    heads = '<th scope="col" class=left>name</th><th scope="col">x</th><th scope="col">y</th><th scope="col">z</th>'
    assert f'{heads}<th scope="col" class=left>verdict</th><td></td>' in html
    cells = '<th scope="row">a</th><td>0.5</td><td>-1</td><td>&lt;0.1%</td>'
    assert f"{cells}<td class=left>good</td><td class=left>-</td>" in html
    assert "<caption>Some &lt;figures&gt;</caption>" in html
    assert '<p class="soft">Read &lt;this&gt;.</p>' in html


def test_parts_without_content_are_left_out() -> None:
    html = to_html(Page("t", "lead", {}, (), {}, {"version": "1"}, (), page_models.points()[:1]), LIBRARY)
    for key in ("pareto", "graph", "nodes", "settings"):
        assert f'id="{key}"' not in html
    assert 'id="provenance"' in html


def test_points_without_a_cost_or_a_loss_are_not_drawn() -> None:
    points = tuple(dataclasses.replace(point, bits=None, energy_pj=None) for point in page_models.points())
    assert 'id="pareto"' not in to_html(dataclasses.replace(PAGE, points=points), LIBRARY)


def test_footer_names_the_library_and_its_licence() -> None:
    html = to_html(PAGE, LIBRARY)
    assert "Charts: plotly.js v9.8.7, Copyright 2012-2026, Plotly, Inc. MIT licence." in html
    assert "Histograms have" not in html


def test_same_report_gives_the_same_bytes() -> None:
    assert to_html(PAGE, LIBRARY) == to_html(PAGE, LIBRARY)


def test_histograms_become_coarser_until_the_page_is_small_and_the_page_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = len(to_html(PAGE, LIBRARY).encode())
    monkeypatch.setattr("mxcompile.page.render.MAXIMUM_BYTES", whole - 1)
    html = to_html(PAGE, LIBRARY)
    assert len(html.encode()) < whole
    assert "Histograms have 48 bins instead of 96, to keep this page below 3 MB." in html
    monkeypatch.setattr("mxcompile.page.render.MAXIMUM_BYTES", 1)
    assert "Histograms have 12 bins instead of 96" in to_html(PAGE, LIBRARY)


def test_page_of_five_forms_of_a_billion_parameters_is_small(tmp_path: Path) -> None:
    variants = tuple(
        page_models.variant(name, name, name, blocks=22, others=111, bins=120)
        for name in ("amxfp4", "mxfp4", "nvfp4", "dint4", "mxfp6_e2m3")
    )
    assert len(variants[0].nodes) > 2600
    file = tmp_path / "report.html"
    write_page(dataclasses.replace(PAGE, variants=variants), file)
    assert file.stat().st_size <= MAXIMUM_BYTES
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ExportError, match=r"report\.html: could not be written: No space left on device"):
        write_page(PAGE, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
