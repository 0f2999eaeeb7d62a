"""A report page as text: what is read stands in it as HTML, what is clicked is drawn by the scripts in `assets`."""

import base64
import gzip
import re
import string
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Final

from mxcompile.cost import text
from mxcompile.cost.html import style
from mxcompile.page.content import Node, Page, Point, Table, Variant
from mxcompile.page.packing import bins, coarser, columns_shown, pack, to_json

MAXIMUM_BYTES: Final = 3_000_000
"""Size that a page keeps to where coarser histograms can bring it there: it can still be sent by mail."""

MAXIMUM_ROWS: Final = 500
"""Products in the table for browsers without scripts."""

_ASSETS: Final = resources.files("mxcompile.page") / "assets"
# In the order in which they need each other.
_SCRIPTS: Final = (
    *("data", "words", "state", "colours", "legend", "layout", "map", "details", "charts", "histogram", "pareto"),
    *("table", "main"),
)
_WITHOUT_SCRIPT: Final = (
    "Scripts are off: the map of the graph, histograms and charts are missing. All else is here; turn scripts on, "
    "or open the file in another browser, to see them."
)
_FIGURES: Final = {
    "k": "k",
    "n": "n",
    "bits": "bits",
    "sqnr_db": "SQNR, dB",
    "kl": "KL, nat",
    "macs": "MACs",
    "energy_pj": "energy",
}


def to_html(page: Page, library: str) -> str:
    """The whole page; with coarser histograms if it would not fit into `MAXIMUM_BYTES` otherwise.

    Args:
        page: The report.
        library: Source of plotly.js.
    """
    packed_library = base64.b64encode(gzip.compress(library.encode(), mtime=0)).decode()
    finest = bins(page)
    while True:
        made = _assemble(page, library, packed_library, finest)
        smaller = coarser(page)
        if len(made.encode()) <= MAXIMUM_BYTES or smaller is page:
            return made
        page = smaller


def _assemble(page: Page, library: str, packed_library: str, finest: int) -> str:
    return _filled(
        "template.html",
        title=escape(page.title),
        style=f"{style()}\n{_asset('page.css')}",
        body="\n".join(_sections(page)),
        footer=_footer(page, library, finest),
        data=to_json(pack(page)),
        library=packed_library,
        script="\n".join(_asset(f"{name}.js") for name in _SCRIPTS),
    )


def _sections(page: Page) -> list[str]:
    """The parts of the page in reading order, after a list of them."""
    parts = {
        "Results": _results(page),
        "Quality against cost": _pareto(page.points),
        "The graph by layer": _asset("graph.html") if any(each.nodes for each in page.variants) else "",
        "Nodes": _nodes(page.variants),
        "Settings": _facts("settings", "Settings", page.settings),
        "Provenance": _facts("provenance", "Provenance", page.provenance),
    }
    ids = ("results", "pareto", "graph", "nodes", "settings", "provenance")
    links = "".join(
        f'<li><a href="#{key}">{title}</a></li>' for key, (title, part) in zip(ids, parts.items(), strict=True) if part
    )
    head = [
        f"<h1>{escape(page.title)}</h1>",
        f"<p>{escape(page.lead)}</p>",
        f"<noscript><p><b>{_WITHOUT_SCRIPT}</b></p></noscript>",
        f'<nav aria-label="Parts of the page"><ul>{links}</ul></nav>',
    ]
    return [*head, *filter(None, parts.values())]


def _results(page: Page) -> str:
    cards = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in page.headline.items()
    )
    tables = "\n".join(_table(each) for each in page.summary)
    return f'<section id="results"><h2>Results</h2><div class="cards">{cards}</div>{tables}</section>'


def _pareto(points: Sequence[Point]) -> str:
    """The picture of quality against cost, where at least two forms of the model have both."""
    both = [
        each
        for each in points
        if (each.bits is not None or each.energy_pj is not None)
        and (each.perplexity_increase is not None or each.kl is not None)
    ]
    if len(both) < 2:
        return ""
    rows = tuple(
        (
            each.name,
            "original" if each.kind == "float" else each.kind,
            _figure(each.bits),
            "-" if each.energy_pj is None else text.energy(each.energy_pj),
            "-" if each.perplexity_increase is None else f"{100 * each.perplexity_increase:.3g}%",
            _figure(each.kl),
        )
        for each in points
    )
    columns = ("form", "kind", "bits a weight", "energy for a token", "growth of perplexity", "KL, nat")
    return _filled("pareto.html", table=_table(Table("Forms of the model", columns, rows)))


def _nodes(variants: Sequence[Variant]) -> str:
    """The table of nodes, and for browsers without scripts the products of the first variant."""
    if not any(each.nodes for each in variants):
        return ""
    shown = [node for node in variants[0].nodes if node.product]
    figures = [key for key in _FIGURES if key in columns_shown(variants[:1])]
    columns = ("node", "formats", *(_FIGURES[key] for key in figures), "left in float, for")
    rows = tuple(
        (node.name, _formats(node), *(_node_figure(node, key) for key in figures), node.skipped or "")
        for node in shown[:MAXIMUM_ROWS]
    )
    note = f"The first {MAXIMUM_ROWS} of {len(shown)}." if len(shown) > MAXIMUM_ROWS else ""
    return _filled("nodes.html", products=_table(Table(f"Products of {variants[0].name}", columns, rows, note)))


def _formats(node: Node) -> str:
    return text.formats(node.weights or "float", node.activations or "float")


def _node_figure(node: Node, key: str) -> str:
    value = getattr(node, key)
    if value is None:
        return "-"
    return text.energy(value) if key == "energy_pj" else text.count(value) if key == "macs" else _figure(value)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _facts(key: str, title: str, facts: dict[str, str]) -> str:
    if not facts:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in facts.items()
    )
    return f'<section id="{key}"><h2>{title}</h2><table class="facts"><tbody>{rows}</tbody></table></section>'


def _table(table: Table) -> str:
    words = [not at or _is_words([row[at] for row in table.rows]) for at in range(len(table.columns))]
    heads = "".join(_head(name, left) for name, left in zip(table.columns, words, strict=True))
    rows = "".join(f"<tr>{_cells(row, words)}</tr>" for row in table.rows)
    note = f'<p class="soft">{escape(table.note)}</p>' if table.note else ""
    title = escape(table.title)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}"><table><caption>{title}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{note}"
    )


def _head(name: str, left: bool) -> str:
    """A head; one without a name would be announced as such, so that it is none."""
    return f'<th scope="col"{" class=left" if left else ""}>{escape(name)}</th>' if name else "<td></td>"


def _is_words(cells: Sequence[str]) -> bool:
    """Whether a column is to be read from the left: none of its cells begins like a number."""
    return not any(cell.lstrip("+-<>~= ")[:1].isdigit() for cell in cells)


def _cells(row: Sequence[str], words: Sequence[bool]) -> str:
    """The first cell names the row."""
    rest = (
        f"<td{' class=left' if left else ''}>{escape(cell)}</td>" for cell, left in zip(row[1:], words[1:], strict=True)
    )
    return f'<th scope="row">{escape(row[0])}</th>{"".join(rest)}'


def _footer(page: Page, library: str, finest: int) -> str:
    """Whose the charts are, and what was done to keep the page small."""
    head = library[:400]
    version, owner = re.search(r"plotly\.js v[\d.]+", head), re.search(r"Copyright [^*\n]+", head)
    named = f"{version[0]}, {owner[0].strip()}" if version and owner else "plotly.js"
    stated = ["One file, nothing is fetched from outside.", f"Charts: {named} MIT licence."]
    coarsest = bins(page)
    if coarsest < finest:
        stated.append(f"Histograms have {coarsest} bins instead of {finest}, to keep this page below 3 MB.")
    return escape(" ".join(stated))


def _filled(name: str, **parts: str) -> str:
    return string.Template(_asset(name)).substitute(parts)


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text("utf-8").rstrip("\n")
