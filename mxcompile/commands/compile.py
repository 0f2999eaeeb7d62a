"""``mxcompile compile``: from a model to a quantized one."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from mxcompile.commands.options import config_file, json_option, override, print_json, sizer

_EPILOG = """\b
Examples:
  mxcompile Qwen/Qwen3-0.6B --format amxfp4 -o qwen3/
  mxcompile model.onnx --format mxfp4 --activations none -o out.onnx
  mxcompile folder/ -o out.onnx --exclude '*down_proj' --set '*q_proj=mxfp4/none'
  mxcompile folder/ -o out.onnx --config settings.toml

\b
A pattern is a glob over layer names such as /model/layers.0/mlp/down_proj;
the last --set that matches decides, and wins over --include and --exclude.
Exit codes: 0 done; 1 an error, in one line on stderr; 2 wrong usage.
"""


@click.command("compile", epilog=_EPILOG)
@click.argument("model")
@click.option("-o", "--output", required=True, help="out.onnx: one file; DIR/: a folder with tokenizer and configs.")
@click.option("--format", default="amxfp4", show_default=True, help="Format of weights and activations.")
@click.option("--weights", help="Format of the weights, in place of --format.")
@click.option("--activations", help="Format of the activations, in place of --format; none: weights only.")
@click.option("--block-size", type=int, help="Elements that share scales: 16, 32, 64 or 128; see `mxcompile formats`.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Quantize only layers that match. Repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave layers that match alone. Repeatable.")
@click.option(
    "--set", "overrides", multiple=True, metavar="PATTERN=FORMAT", help="Also PATTERN=WEIGHTS/ACTIVATIONS. Repeatable."
)
@click.option(
    "--attention/--no-attention", default=True, show_default=True, help="Quantize the attention products too."
)
@click.option("--attention-format", help="Format of queries, keys, probabilities and values; otherwise --activations.")
@click.option("--kv-format", help="Format of keys and values.")
@click.option(
    "--kv-blocking",
    type=click.Choice(["sequence", "token"]),
    default="sequence",
    show_default=True,
    help="What blocks of values run along.",
)
@click.option(
    "--kv-cache",
    type=click.Choice(["packed", "float"]),
    help="How a decoder keeps keys and values. Default: packed in a file, float in a folder (for optimum).",
)
@click.option("--task", help="Export task; otherwise that of the model's class, with a key-value cache.")
@click.option("--no-fuse", is_flag=True, help="Keep QuantizeBlock and DequantizeBlock around MatMul.")
@click.option("--force", is_flag=True, help="Replace existing output.")
@click.option("--dump", metavar="DIR", help="Save the model after each pass.")
@click.option(
    "--config", is_eager=True, callback=config_file, metavar="FILE.toml", help="Defaults for all these options."
)
@click.option("--verbose", is_flag=True, help="Log every pass on stderr.")
@json_option
def compile_command(
    model: str,
    output: str,
    format: str,
    weights: str | None,
    activations: str | None,
    block_size: int | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    overrides: tuple[str, ...],
    attention: bool,
    attention_format: str | None,
    kv_format: str | None,
    kv_blocking: str,
    kv_cache: str | None,
    task: str | None,
    no_fuse: bool,
    force: bool,
    dump: str | None,
    config: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Compiles MODEL: a hub id, a Hugging Face folder, or an .onnx file."""
    from mxcompile import display
    from mxcompile.compiler import compile_model, default_kv_cache
    from mxcompile.config import CompileConfig
    from mxcompile.output import Destination

    sized = sizer(block_size)
    settings: dict[str, Any] = {
        "format": sized(format),
        "weights": weights and sized(weights),
        "activations": activations and sized(activations),
        "include": include,
        "exclude": exclude,
        "overrides": tuple(override(text, sized) for text in overrides),
        "fuse": not no_fuse,
        "attention": attention,
        "attention_format": attention_format and sized(attention_format),
        "kv_format": kv_format and sized(kv_format),
        "kv_blocking": kv_blocking,
        "kv_cache": kv_cache or default_kv_cache(output),
    }
    others = {"task": task, "dump": dump, "config": config}
    display.show_settings(model, output, CompileConfig.of(**settings), others)
    with _logging(verbose), display.progress(bar=not verbose) as tell:
        report = compile_model(model, output=output, **settings, task=task, force=force, dump=dump, progress=tell)
    written = Path(report.output)
    path = Destination(written, written.is_dir()).report
    if as_json:
        print_json({**report.to_dict(), "report": str(path)})
    else:
        display.show_report(report, path)


@contextlib.contextmanager
def _logging(verbose: bool) -> Iterator[None]:
    """Shows this package's log on stderr, if asked to."""
    if not verbose:
        yield
        return
    logger, handler = logging.getLogger("mxcompile"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
