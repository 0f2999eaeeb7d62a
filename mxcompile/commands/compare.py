"""``mxcompile compare``: one model in several formats, side by side."""

from typing import Any

import click

from mxcompile.commands.options import file_target, json_option, names, print_json, report_options, write_file
from mxcompile.commands.sensitivity import data_options

_EPILOG = """\b
Examples:
  mxcompile compare MODEL --formats amxfp4,mxfp4,dint4
  mxcompile compare MODEL --data test.txt --prefill 1024 --decode 1024 --csv formats.csv
  mxcompile compare MODEL --formats amxfp4,mxfp4,nvfp4 --report formats.html
  mxcompile compare vit-folder --data images.npz --no-attention

\b
The first row is the original. "bits" are stored bits of a quantized weight,
"of all" the mean over all linear layers. Energy and area are estimates for an
engine (see `mxcompile cost`), tokens/s are measured here, each format in turns
with the original. docs/compare.md defines every column.
Exit codes: 0 done; 1 an error, in one line on stderr; 2 wrong usage.
"""

_WANTED = ("formats", "include", "exclude", "attention", "engine", "technology", "prefill", "decode", "rounds")


@click.command("compare", epilog=_EPILOG)
@click.argument("model")
@click.option(
    "--formats",
    default="amxfp4,mxfp4,nvfp4,dint4,int8",
    show_default=True,
    callback=names,
    help="What to compare, between commas.",
)
@click.option("--include", multiple=True, metavar="PATTERN", help="Only layers that match. Repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave layers that match alone. Repeatable.")
@click.option("--attention/--no-attention", default=True, show_default=True, help="Attention products too.")
@data_options
@click.option("--prompts", type=int, default=32, show_default=True, help="Prompts to continue greedily; 0: none.")
@click.option("--new-tokens", type=int, default=64, show_default=True, help="Tokens added to each, at most.")
@click.option("--prefill", type=int, metavar="N", help="Tokens of a prefill. Default: 128, or half of what it takes.")
@click.option("--decode", type=int, metavar="N", help="Tokens in the cache of a step. Default: likewise.")
@click.option(
    "--engine", default="edge-npu", show_default=True, help="Of energy and area: a shipped one, or FILE.toml."
)
@click.option("--technology", default="freepdk45", show_default=True, help="Of energy and area: likewise.")
@click.option("--rounds", type=int, default=10, show_default=True, help="Rounds of timing; 0: none.")
@click.option("--csv", metavar="FILE", help="Write the table as CSV too.")
@report_options(force=False)
@click.option("--force", is_flag=True, help="Replace existing files.")
@json_option
def compare_command(
    model: str, csv: str | None, page: str | None, force: bool, no_library: bool, as_json: bool, **given: Any
) -> None:
    """Compares formats for MODEL: quality, size, energy, area and speed in one table.

    MODEL is a hub id, a Hugging Face folder, or an .onnx file that is not compiled. Without --data, the text is what
    the folder names in its heldout_files.json, as the demo model does.
    """
    from mxcompile import display
    from mxcompile.evaluation import EvalOptions
    from mxcompile.evaluation.compare import CompareOptions, compare
    from mxcompile.evaluation.show_compare import show_comparison, to_csv
    from mxcompile.page.write import check_page, write_page

    wanted = CompareOptions(**{name: given.pop(name) for name in _WANTED})
    options = EvalOptions(**given, library=not no_library)
    table, content = file_target(csv, force), None
    if page is not None:
        check_page(page, force=force)
    with display.progress() as tell:
        if page is None:
            report = compare(model, wanted, options, progress=tell)
        else:
            from mxcompile.page.from_compare import describe_comparison

            report, content = describe_comparison(model, wanted, options, progress=tell)
    if table is not None:
        write_file(table, to_csv(report))
    if page is not None and content is not None:
        write_page(content, page, force=force)
    if as_json:
        print_json(report.to_dict())
    else:
        show_comparison(report)
