"""How a report page looks: on a phone, in the dark, to the colour-blind, on paper, and without scripts."""

from pathlib import Path

import browser
import numpy as np
import numpy.typing as npt
import page_models
import pytest
from browser import HAS_BROWSER, PHONE, Opened

PAGE = page_models.page()
MODES = ("format", "sqnr_db", "kl", "energy_pj")

# WCAG 2.2, success criterion 1.4.3: text below 24 px.
ENOUGH_CONTRAST = 4.5
# Of controls, and of cells of the map, which are many (WCAG 2.2, 2.5.8 asks for 24).
CONTROL, CELL = 44, 32
# Colours that differ less than this in a channel look alike in small areas.
DISTINCT = 25

# Every visible text with its contrast to what lies behind it (WCAG 2 relative luminance).
_CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1), context = canvas.getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = colour => rgba(colour).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const found = new Map(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest("script, style, noscript, .unseen, option")) continue;
    const style = getComputedStyle(element), ink = element.closest("svg") ? style.fill : style.color;
    const key = `${ink} on ${behind(element)}`;
    if (found.has(key)) continue;
    const [dark, light] = [luminance(ink), luminance(behind(element))].sort((a, b) => a - b);
    found.set(key, [(light + 0.05) / (dark + 0.05), `${text.slice(0, 40)}: ${key}`]);
  }
  return [...found.values()];
}"""

_SIZES = """all => all.filter(each => each.checkVisibility()).map(each => {
  const {width, height} = each.getBoundingClientRect();
  return [width, height, each.outerHTML.slice(0, 80)];
})"""


def contrasts(report: Opened) -> list[tuple[float, str]]:
    """Contrasts of the texts of a page, and where they were found."""
    return [(ratio, where) for ratio, where in report.page.evaluate(_CONTRASTS)]


def middle(image: npt.NDArray[np.uint8], box: dict[str, float]) -> npt.NDArray[np.int64]:
    """The most common colour of a box on a screenshot."""
    left, top = int(box["x"]), int(box["y"])
    part = image[top + 2 : top + int(box["height"]) - 2, left + 2 : left + int(box["width"]) - 2].reshape(-1, 3)
    colours, times = np.unique(part, axis=0, return_counts=True)
    return colours[times.argmax()].astype(np.int64)


if HAS_BROWSER:

    def test_page_is_never_wider_than_a_phone(report: Opened) -> None:
        report.page.set_viewport_size(PHONE)
        for mode in MODES:
            report.page.check(f"input[name=mode][value={mode}]")
            for summary in report.page.locator("summary").all():
                summary.click()
            assert report.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        # What is wider scrolls inside, so that it can be reached.
        assert report.page.evaluate("document.querySelector('.map-holder').scrollWidth") > PHONE["width"]

    def test_fingers_hit_cells_and_controls(report: Opened) -> None:
        report.page.set_viewport_size(PHONE)
        cells = report.page.locator("#map tbody button").evaluate_all(_SIZES)
        assert [each for each in cells if min(each[:2]) < CELL] == []
        selector = ".tools select, .tools label, #find, #operands button, summary, #node-heads button, nav a"
        controls = report.page.locator(selector).evaluate_all(_SIZES)
        assert len(controls) > 20
        assert [each for each in controls if each[1] < CONTROL] == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_texts_stand_out_from_what_is_behind_them(report: Opened, scheme: str) -> None:
        report.redrawn("histogram", lambda: report.page.emulate_media(color_scheme="dark"))
        if scheme == "light":
            report.redrawn("histogram", lambda: report.page.emulate_media(color_scheme="light"))
        for mode in MODES:
            report.page.check(f"input[name=mode][value={mode}]")
            found = contrasts(report)
            assert len(found) > 5
            assert [where for ratio, where in found if ratio < ENOUGH_CONTRAST] == []

    def test_charts_follow_the_colours_of_the_reader(chromium: browser.Browser, report: Opened) -> None:
        report.page.set_viewport_size(PHONE)
        report.page.locator("#pareto-chart").scroll_into_view_if_needed()
        light = browser.pixels(chromium, report.page.locator("#pareto-chart").screenshot())
        report.redrawn("pareto-chart", lambda: report.page.emulate_media(color_scheme="dark"))
        dark = browser.pixels(chromium, report.page.locator("#pareto-chart").screenshot())
        assert np.median(light) == 255
        assert np.median(dark) < 40
        for image in (light, dark):
            assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50

    def test_nothing_moves_when_charts_take_a_new_width(report: Opened) -> None:
        heights = "() => [...document.querySelectorAll('.chart')].map(each => each.getBoundingClientRect().height)"
        before = report.page.evaluate(heights)
        report.page.set_viewport_size(PHONE)
        # The plotting library follows a tenth of a second later; until then a chart may not reach out of its place.
        assert report.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        report.page.wait_for_function(
            "width => [...document.querySelectorAll('.chart svg.main-svg')].every(each => each.clientWidth < width)",
            arg=PHONE["width"],
        )
        assert len(before) == 2
        assert report.page.evaluate(heights) == before

    def test_formats_differ_for_the_colour_blind(chromium: browser.Browser, report: Opened) -> None:
        tools = report.page.context.new_cdp_session(report.page)
        report.page.set_viewport_size({"width": 420, "height": 520})
        report.page.locator("#legend").evaluate("each => each.scrollIntoView()")
        chips = [chip.bounding_box() for chip in report.page.locator("#legend .chip").all()[:3]]
        # The outlined cell is left out, its border would be the most common colour of so small a piece.
        cell = report.page.locator("#map tbody tr:nth-child(3) button").first.bounding_box()
        for deficiency in ("none", "deuteranopia", "protanopia", "tritanopia", "achromatopsia"):
            tools.send("Emulation.setEmulatedVisionDeficiency", {"type": deficiency})
            image = browser.pixels(chromium, report.page.screenshot())
            first, second, third = (middle(image, chip) for chip in chips)
            assert (middle(image, cell) == first).all()
            for a, b in ((first, second), (first, third), (second, third)):
                assert np.abs(a - b).max() > DISTINCT, deficiency
        tools.send("Emulation.setEmulatedVisionDeficiency", {"type": "none"})
        assert [text[0] for text in report.texts("#legend li")[:3]] == ["A", "B", "C"]

    def test_focus_is_visible(report: Opened) -> None:
        report.page.locator("nav a").first.focus()
        for _ in range(25):
            report.page.keyboard.press("Tab")
            style, width = report.page.evaluate(
                "() => ['outlineStyle', 'outlineWidth'].map(name => getComputedStyle(document.activeElement)[name])"
            )
            assert style == "solid"
            assert float(width.removesuffix("px")) >= 2

    def test_paper_shows_all_rows_and_no_controls(report: Opened) -> None:
        report.page.emulate_media(media="print")
        try:
            assert not report.page.locator("#find").is_visible()
            holder = report.page.locator("#nodes .scroll").first
            assert holder.evaluate("each => each.scrollHeight === each.clientHeight")
        finally:
            report.page.emulate_media(media="screen")

    def test_page_without_scripts_shows_figures_and_says_what_is_missing(
        chromium: browser.Browser, page_file: Path
    ) -> None:
        with browser.opened(chromium, page_file, java_script_enabled=False) as opened:
            texts = opened.page.locator("main").inner_text()
            assert "Scripts are off" in texts
            assert not opened.page.locator("#graph").is_visible()
            assert not opened.page.locator("#find").is_visible()
            for value in (*PAGE.headline.values(), *PAGE.settings.values(), *PAGE.provenance.values(), "0.9987"):
                assert value in texts
            products = [node.name for node in PAGE.variants[0].nodes if node.product]
            assert opened.texts("#nodes .without-script tbody th") == products

    def test_browser_that_cannot_unpack_charts_shows_all_else(chromium: browser.Browser, page_file: Path) -> None:
        with browser.opened(chromium, page_file, before="delete window.DecompressionStream") as opened:
            opened.page.locator("#histogram").scroll_into_view_if_needed()
            opened.page.wait_for_selector("#histogram p")
            assert "cannot unpack the charts" in opened.page.locator("#histogram p").text_content()
            assert len(opened.texts("#histogram-numbers tbody tr")) == 96 + 15
            assert len(opened.texts("#node-rows tr")) == 28
            assert opened.complaints == []
