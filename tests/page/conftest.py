"""Report pages in headless Chromium; collected only where there is one (`browser.HAS_BROWSER`)."""

from collections.abc import Iterator
from pathlib import Path

import browser
import page_models
import pytest

from mxcompile.page.write import write_page


@pytest.fixture(scope="package")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `page_models.page`. Not to be changed."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    write_page(page_models.page(), file)
    return file


@pytest.fixture(scope="package")
def chromium() -> Iterator[browser.Browser]:
    """The browser, started once."""
    with browser.started() as started:
        yield started


@pytest.fixture(scope="package")
def opened(chromium: browser.Browser, page_file: Path) -> Iterator[browser.Opened]:
    """The report with all its charts, loaded once."""
    with browser.opened(chromium, page_file) as opened:
        opened.wait_for_chart("pareto-chart")
        opened.wait_for_chart("histogram")
        yield opened


@pytest.fixture
def report(opened: browser.Opened) -> browser.Opened:
    """The report as it is after loading, whatever tests before have clicked."""
    opened.reset()
    return opened
