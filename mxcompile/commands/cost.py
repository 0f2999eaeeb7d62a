"""``mxcompile cost``: what a model costs on an engine, node by node and in total."""

from pathlib import Path
from typing import Any

import click

from mxcompile.commands.options import file_target, json_option, print_json, write_file
from mxcompile.errors import ConfigError, ExportError

_EPILOG = """\b
Examples:
  mxcompile cost out.onnx --prefill 1024 --decode 1024
  mxcompile cost out.onnx --engine datacenter-tile --batch 16 --decode 4096
  mxcompile cost out.onnx --compare mxfp4,nvfp4,int8,float16 --format html -o cost.html
  mxcompile cost vit.onnx --dim height=224 --dim width=224 --dim num_channels=3

\b
A prefill reads so many tokens with an empty cache, a decode one more with so many
in the cache; without both, 128 each. Every figure's origin stands in the report.
"""


@click.command("cost", epilog=_EPILOG)
@click.argument("file")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "html"]), default="table", show_default=True
)
@click.option("-o", "--output", metavar="FILE", help="Write there instead of on stdout.")
@click.option("--prefill", type=click.IntRange(min=1), metavar="N", help="A run over N tokens.")
@click.option("--decode", type=click.IntRange(min=0), metavar="N", help="A step behind N cached tokens.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences.")
@click.option("--dim", "dims", multiple=True, metavar="NAME=NUMBER", help="Any other dimension. Repeatable.")
@click.option("--technology", default="freepdk45", show_default=True, help="Unit costs: a name, or FILE.toml.")
@click.option("--engine", default="edge-npu", show_default=True, help="Array and memories: a name, or FILE.toml.")
@click.option("--compare", metavar="FORMATS", help="Also in these formats: mxfp4,nvfp4,int8,float16.")
@click.option("--top", type=click.IntRange(min=0), default=10, show_default=True, help="Nodes in the table.")
@click.option("--annotate", metavar="OUT.onnx", help="Write the model with the cost in the metadata of its nodes.")
@click.option("--force", is_flag=True, help="Replace existing output.")
@json_option
def cost_command(
    file: str,
    form: str,
    output: str | None,
    prefill: int | None,
    decode: int | None,
    batch: int,
    dims: tuple[str, ...],
    technology: str,
    engine: str,
    compare: str | None,
    top: int,
    annotate: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Estimates energy, time and area of FILE, a model in ONNX, compiled or not, on an array of MAC units."""
    from mxcompile.cost.report import report_model
    from mxcompile.onnx_file import read_model
    from mxcompile.output import Destination

    form = "json" if as_json else form
    target = file_target(output, force)
    destination = Destination.of(annotate, force=force, source=file) if annotate is not None else None
    path = _model_file(file)
    model = read_model(path, compiled=True)
    report = report_model(
        path.name,
        model,
        engine=engine,
        technology=technology,
        batch=batch,
        prefill=prefill,
        decode=decode,
        dims=dict(_dim(text) for text in dims),
        formats=tuple(name.strip() for name in compare.split(",")) if compare else (),
    )
    _print(report, form, target, top)
    if destination is not None:
        _annotate(model, report, destination)


def _print(report: Any, form: str, target: Path | None, top: int) -> None:
    """Shows the report, or writes it."""
    import io
    import json

    if form == "table" and target is None:
        from mxcompile.cost.table import show

        show(report, top)
        return
    if form == "json" and target is None:
        print_json(report.to_dict())
        return
    if form == "table":
        from mxcompile.cost.table import show

        file = io.StringIO()
        show(report, top, file)
        content = file.getvalue()
    elif form == "json":
        content = json.dumps(report.to_dict(), indent=2) + "\n"
    elif form == "csv":
        content = report.to_csv()
    else:
        from mxcompile.cost.html import to_html

        content = to_html(report)
    if target is None:
        click.echo(content, nl=False)
    else:
        write_file(target, content)


def _annotate(model: Any, report: Any, destination: Any) -> None:
    """Writes the model with the cost of every phase in its metadata."""
    from mxcompile.passes.annotate_cost import AnnotateCost

    for index, each in enumerate(report.phases):
        phase = each.phase
        AnnotateCost(
            tuple(phase.dims.items()), report.technology, report.engine, phase.tokens, phase.name if index else ""
        )(model)
    destination.write({destination.path.name: model}, ())


def _model_file(file: str) -> Path:
    """The file to read: that, or the only one of a folder."""
    path = Path(file).expanduser()
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.onnx"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(each) for each in found) or "no .onnx file"
    raise ExportError(f"{file}: has {names}; name one of them" if found else f"{file}: has {names}; name an .onnx file")


def _dim(text: str) -> tuple[str, int]:
    """``NAME=NUMBER`` as name and number."""
    name, equals, number = text.rpartition("=")
    if not (name and equals and number.isdecimal()):
        raise ConfigError(f"--dim {text!r}: NAME=NUMBER is expected, with a whole number from 0 up")
    return name.strip(), int(number)
