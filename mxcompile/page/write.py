"""Writes a report page: one HTML file that needs nothing from outside, whole or not at all."""

import importlib.util
import os
from pathlib import Path

from mxcompile.errors import ConfigError, ExportError
from mxcompile.page.content import Page
from mxcompile.page.render import to_html


def check_page(path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Checks that a page can be written, before the long work begins.

    Args:
        path: ``report.html``.
        force: Whether an existing file may be replaced.

    Raises:
        ConfigError: The name does not end with ``.html``.
        ExportError: There is no such folder, it is not writable, the file exists, or plotly is not installed.
    """
    text = os.fspath(path)
    file = Path(text).expanduser()
    if file.suffix.lower() != ".html":
        raise ConfigError(f"{text}: a report is one HTML file; give it a name that ends with .html")
    if file.is_dir():
        raise ExportError(f"{text}: is a folder, not a file; choose another name for the report")
    parent = file.absolute().parent
    if not parent.is_dir():
        raise ExportError(f"{text}: there is no folder {parent}; create it first")
    if not os.access(parent, os.W_OK):
        raise ExportError(f"{text}: the folder {parent} is not writable; choose another place for the report")
    if file.exists() and not force:
        raise ExportError(f"{text}: exists already; add --force to replace it, or choose another name")
    if importlib.util.find_spec("plotly") is None:
        raise ExportError(f"{text}: a report needs plotly; run pip install 'mxcompile[report]'")


def write_page(page: Page, path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Writes a page beside its place and then renames it.

    Args:
        page: The report.
        path: ``report.html``.
        force: Whether an existing file may be replaced.

    Raises:
        ConfigError: The name does not end with ``.html``.
        ExportError: As `check_page`; or the disk is full, or anything else the system objects to.
    """
    check_page(path, force=force)
    # Not needed by those who write no reports: an optional dependency.
    import plotly.offline

    html = to_html(page, plotly.offline.get_plotlyjs())
    file = Path(path).expanduser()
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        temporary.write_text(html, "utf-8", newline="\n")
        temporary.replace(file)
    except OSError as error:
        raise ExportError(f"{os.fspath(path)}: could not be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
