"""``mxcompile search``: the cheapest mixture of formats that keeps a bound on the perplexity."""

from typing import Any

import click

from mxcompile.commands.options import json_option, names, number, print_json, report_options
from mxcompile.commands.sensitivity import data_options

_EPILOG = """\b
Examples:
  mxcompile search MODEL --max-ppl-increase 2% -o out.onnx
  mxcompile search MODEL --objective energy --formats amxfp4,mxfp8_e4m3,int8 --max-ppl-increase 2% -o out.onnx

\b
Predicted figures are sums of each product's own divergence; the written model's
figures are measured. Float is always a candidate. Needs SciPy:
pip install 'mxcompile[search]'.
Exit codes: 0 done; 1 an error, in one line on stderr; 2 wrong usage.
"""


@click.command("search", epilog=_EPILOG)
@click.argument("model")
@click.option("-o", "--output", required=True, help="out.onnx: one file; DIR/: a folder with tokenizer and configs.")
@click.option("--max-ppl-increase", required=True, metavar="SHARE", callback=number, help="Such as 2%.")
@click.option(
    "--formats",
    default="mxfp4,amxfp4,mxfp6_e2m3,mxfp8_e4m3",
    show_default=True,
    callback=names,
    help="Candidates, between commas.",
)
@click.option(
    "--objective",
    type=click.Choice(["bits", "energy"]),
    default="bits",
    show_default=True,
    help="What is to be least: bits of the weights, or energy of a prefill (see `mxcompile cost`).",
)
@click.option("--engine", default="edge-npu", show_default=True, help="Of the energy: a shipped one, or FILE.toml.")
@click.option("--technology", default="freepdk45", show_default=True, help="Of the energy: likewise.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Search only layers that match. Repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave layers that match alone. Repeatable.")
@click.option("--attention/--no-attention", default=True, show_default=True, help="Attention products too.")
@data_options
@click.option("--plot", metavar="FILE", help="Draw the front: FILE.png, .svg or .pdf (needs matplotlib).")
@click.option("--force", is_flag=True, help="Replace existing output.")
@report_options(force=False)
@json_option
def search_command(
    model: str,
    output: str,
    max_ppl_increase: float,
    plot: str | None,
    force: bool,
    page: str | None,
    no_library: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Finds the cheapest format for each matrix product of MODEL, and compiles it so.

    MODEL is a hub id, a Hugging Face folder, or an .onnx file that is not compiled. Without --data, the text is what
    the folder names in its heldout_files.json, as the demo model does.
    """
    from mxcompile import display
    from mxcompile.evaluation import EvalOptions
    from mxcompile.evaluation.data import Samples
    from mxcompile.evaluation.search import SearchOptions, search
    from mxcompile.evaluation.show_search import check_plot, plot_search, show_search
    from mxcompile.page.write import check_page, write_page

    asked = ("formats", "objective", "engine", "technology", "include", "exclude", "attention")
    wanted = SearchOptions(max_ppl_increase=max_ppl_increase, **{name: given.pop(name) for name in asked})
    options = EvalOptions(**given, prompts=0, library=not no_library)
    if plot is not None:
        check_plot(plot)
    if page is not None:
        check_page(page, force=force)
    kept: list[Samples] = []
    with display.progress() as tell:
        report = search(model, wanted, output, options, force=force, progress=tell, keep=kept.append)
    if plot is not None:
        plot_search(report, plot)
    if as_json:
        print_json(report.to_dict())
    else:
        show_search(report)
    if page is not None:
        from mxcompile.page.from_search import describe_search

        with display.progress() as tell:
            content = describe_search(report, wanted, options, kept[0], progress=tell)
        write_page(content, page, force=force)
