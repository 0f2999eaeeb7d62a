"""Takes the pictures of docs/evaluation.md: ``python docs/shoot_report.py REPORT.html [FOLDER]``.

REPORT.html is what ``mxcompile compare examples/demo-model --formats amxfp4,mxfp4,dint4 --report REPORT.html`` writes.
Needs Debian's ``chromium``, Playwright and matplotlib (``pip install '.[dev,docs]'``).
"""

import shutil
import sys
from pathlib import Path

from pictures import save_png
from playwright.sync_api import Page, sync_playwright

CHARTS = ("pareto-chart", "histogram")
SIZE = {"width": 1100, "height": 1100}


def drawn(page: Page, file: Path) -> Page:
    """The report with all its charts, the map coloured by error."""
    page.goto(file.resolve().as_uri())
    for chart in CHARTS:
        page.locator(f"#{chart}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#{chart}[data-drawn]", state="attached")
    page.get_by_label("error (SQNR)").check()
    return page


def main() -> None:
    """Takes both pictures: quality against cost, and the graph with the values of an operand."""
    file = Path(sys.argv[1])
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).resolve().parent / "images"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = drawn(browser.new_page(viewport=SIZE, reduced_motion="reduce"), file)
        for section in ("pareto", "graph"):
            save_png(page.locator(f"#{section}").screenshot(), folder / f"report-{section}.png")
        browser.close()


if __name__ == "__main__":
    main()
