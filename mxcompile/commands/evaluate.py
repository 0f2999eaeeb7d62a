"""``mxcompile eval``: how far a compiled model is from its reference, and whether that is near enough."""

from collections.abc import Callable
from typing import Any

import click

from mxcompile.commands.options import json_option, number, print_json, report_options
from mxcompile.errors import MxCompileError

_EPILOG = """\b
Examples:
  mxcompile eval out.onnx --reference MODEL --data test.txt --seq-len 2048
  mxcompile eval out.onnx --reference MODEL --data test.txt --max-ppl-increase 5% --min-top1 90%
  mxcompile eval vit.onnx --reference vit-folder --data images.npz --min-top1 0.99
  mxcompile eval out.onnx --reference MODEL --tasks task.yaml --limit 100
  mxcompile eval out.onnx --reference MODEL --data test.txt --report out.html

\b
Shares may be written 0.02 or 2%. KL divergence is in nats, SQNR in decibels.
Exit codes: 0 done, and every threshold is kept; 1 an error, or a threshold
that is not kept, in one line on stderr; 2 wrong usage.
"""


_THRESHOLDS = {
    "max_kl": ("NATS", "Mean divergence of the next token's distribution."),
    "max_kl_p99": ("NATS", "Divergence that 99% of the predictions stay below."),
    "min_top1": ("SHARE", "Predictions whose likeliest token or class agrees."),
    "max_ppl_increase": ("SHARE", "Growth of perplexity, such as 2%."),
    "max_flip_rate": ("SHARE", "Greedily generated tokens that differ."),
    "min_cosine": ("COSINE", "Mean cosine of logits or embeddings."),
    "min_sqnr": ("DB", "Power of the output over that of its error."),
}


def _thresholds(command: Callable[..., None]) -> Callable[..., None]:
    """Adds an option for each threshold."""
    for name, (metavar, text) in reversed(_THRESHOLDS.items()):
        option = click.option(f"--{name.replace('_', '-')}", metavar=metavar, callback=number, help=text)
        command = option(command)
    return command


@click.command("eval", epilog=_EPILOG)
@click.argument("file")
@click.option("--reference", required=True, metavar="MODEL", help="The original: hub id, folder, or .onnx file.")
@click.option("--data", multiple=True, metavar="FILE", help="Text, repeatable; or one .npz of inputs.")
@click.option("--seq-len", type=int, help="Tokens of a window. Default: 2048, or what the model takes.")
@click.option("--windows", type=int, help="At most so many windows, or samples of an .npz.")
@click.option("--tokens", type=int, help="At most so many tokens.")
@click.option("--prompts", type=int, default=32, show_default=True, help="Prompts to continue greedily; 0: none.")
@click.option("--new-tokens", type=int, default=64, show_default=True, help="Tokens added to each, at most.")
@_thresholds
@click.option("--tasks", multiple=True, metavar="NAME_OR_YAML", help="Task of lm-evaluation-harness. Repeatable.")
@click.option("--limit", type=int, help="At most so many documents of each task.")
@click.option("--resume", metavar="FILE", help="Keep finished windows in FILE, and go on from there.")
@click.option("--tokenizer", metavar="FILE", help="tokenizer.json; otherwise that of the model or the reference.")
@click.option("--task", help="Export task of the reference; otherwise that of the model.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of onnxruntime; otherwise all cores.")
@click.option("--no-library", is_flag=True, help="Run the ops' bodies in the stock onnxruntime (slow).")
@report_options()
@json_option
def eval_command(
    file: str, reference: str, no_library: bool, page: str | None, force: bool, as_json: bool, **given: Any
) -> None:
    """Compares FILE, a compiled model, with the original, on text or arrays.

    Without --data, the text is what the reference names in its heldout_files.json, as the demo model does. With
    --tasks and without --data only the tasks are run.
    """
    from mxcompile import display
    from mxcompile.evaluation import EvalOptions, Thresholds, evaluate
    from mxcompile.evaluation.data import Samples
    from mxcompile.evaluation.show import show_evaluation
    from mxcompile.page.write import check_page, write_page

    thresholds = Thresholds(**{name: given.pop(name) for name in _THRESHOLDS})
    options = EvalOptions(**given, thresholds=thresholds, library=not no_library)
    if page is not None:
        check_page(page, force=force)
    kept: list[Samples] = []
    with display.progress() as tell:
        report = evaluate(file, reference, options, progress=tell, keep=kept.append)
    if as_json:
        print_json(report.to_dict())
    else:
        show_evaluation(report)
    if page is not None:
        from mxcompile.page.from_eval import describe_evaluation

        with display.progress() as tell:
            content = describe_evaluation(report, options, kept[0] if kept else None, progress=tell)
        write_page(content, page, force=force)
    if report.failed:
        found = "; ".join(map(str, report.failed))
        raise MxCompileError(f"{file}: not near enough to {reference}: {found}")
