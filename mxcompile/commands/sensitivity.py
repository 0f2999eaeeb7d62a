"""``mxcompile sensitivity``: what the quantization of each matrix product does to a model."""

from collections.abc import Callable
from typing import Any

import click

from mxcompile.commands.options import json_option, number, override, print_json, report_options, sizer
from mxcompile.errors import MxCompileError

_EPILOG = """\b
Examples:
  mxcompile sensitivity MODEL --format amxfp4 --data test.txt
  mxcompile sensitivity MODEL --max-ppl-increase 2%
  mxcompile sensitivity vit-folder --data images.npz --no-attention
  mxcompile sensitivity MODEL --report ranking.html

\b
"alone" is the model with that product alone quantized, "others" the model with
everything but it, both compared with the float model. "own SQNR" is that of the
product's result on its inputs in the float model. KL divergence is in nats.
Exit codes: 0 done; 1 an error, in one line on stderr; 2 wrong usage.
"""

_SETTINGS = ("include", "exclude", "attention", "kv_blocking")
_FORMATS = ("format", "weights", "activations", "attention_format", "kv_format")


def format_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that say what is quantized, as those of ``compile``."""
    for option in (
        click.option("--kv-blocking", type=click.Choice(["sequence", "token"]), default="sequence", show_default=True),
        click.option("--kv-format", help="Format of keys and values."),
        click.option("--attention-format", help="Format of queries, keys, probabilities and values."),
        click.option("--attention/--no-attention", default=True, show_default=True, help="Attention products too."),
        click.option("--set", "overrides", multiple=True, metavar="PATTERN=FORMAT", help="As of compile. Repeatable."),
        click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave layers that match alone. Repeatable."),
        click.option("--include", multiple=True, metavar="PATTERN", help="Only layers that match. Repeatable."),
        click.option("--block-size", type=int, help="Elements that share scales."),
        click.option("--activations", help="Format of the activations, in place of --format."),
        click.option("--weights", help="Format of the weights, in place of --format."),
        click.option("--format", default="amxfp4", show_default=True, help="Format of weights and activations."),
    ):
        command = option(command)
    return command


def data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that say what is measured on, as those of ``eval``."""
    for option in (
        click.option("--no-library", is_flag=True, help="Run the ops' bodies in the stock onnxruntime (slow)."),
        click.option("--threads", type=click.IntRange(min=1), help="Threads of onnxruntime; otherwise all cores."),
        click.option("--task", help="Export task; otherwise that of the model's class."),
        click.option("--tokenizer", metavar="FILE", help="tokenizer.json; otherwise the model's own."),
        click.option("--tokens", type=int, help="At most so many tokens."),
        click.option("--windows", type=int, default=16, show_default=True, help="At most so many windows or samples."),
        click.option("--seq-len", type=int, help="Tokens of a window. Default: 2048, or what the model takes."),
        click.option("--data", multiple=True, metavar="FILE", help="Text, repeatable; or one .npz of inputs."),
    ):
        command = option(command)
    return command


@click.command("sensitivity", epilog=_EPILOG)
@click.argument("model")
@format_options
@data_options
@click.option(
    "--max-ppl-increase",
    metavar="SHARE",
    callback=number,
    help="Find what to leave in float for this growth of perplexity, such as 2%.",
)
@report_options()
@json_option
def sensitivity_command(
    model: str,
    overrides: tuple[str, ...],
    block_size: int | None,
    no_library: bool,
    max_ppl_increase: float | None,
    page: str | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Ranks the matrix products of MODEL by what their quantization does to it.

    MODEL is a hub id, a Hugging Face folder, or an .onnx file that is not compiled. Without --data, the text is what
    the folder names in its heldout_files.json, as the demo model does.
    """
    from mxcompile import display
    from mxcompile.config import CompileConfig
    from mxcompile.evaluation import EvalOptions, Thresholds
    from mxcompile.evaluation.data import Samples
    from mxcompile.evaluation.sensitivity import sensitivity
    from mxcompile.evaluation.show_sensitivity import show_sensitivity
    from mxcompile.page.write import check_page, write_page

    sized = sizer(block_size)
    settings: dict[str, Any] = {name: given.pop(name) for name in _SETTINGS}
    settings |= {name: sized(value) for name in _FORMATS if (value := given.pop(name)) is not None}
    settings["overrides"] = tuple(override(text, sized) for text in overrides)
    config = CompileConfig.of(**settings, kv_cache="float")
    target = Thresholds(max_ppl_increase=max_ppl_increase)
    options = EvalOptions(**given, thresholds=target, library=not no_library)
    if page is not None:
        check_page(page, force=force)
    kept: list[Samples] = []
    with display.progress() as tell:
        report = sensitivity(model, config, options, progress=tell, keep=kept.append)
    if as_json:
        print_json(report.to_dict())
    else:
        show_sensitivity(report)
    if page is not None:
        from mxcompile.page.from_sensitivity import describe_sensitivity

        with display.progress() as tell:
            content = describe_sensitivity(report, config, options, kept[0], progress=tell)
        write_page(content, page, force=force)
    if report.selection is not None and len(report.selection.excluded) == len(report.products):
        raise MxCompileError(
            f"{model}: no product can be quantized within --max-ppl-increase {max_ppl_increase:g}; allow more, or "
            "choose another --format"
        )
