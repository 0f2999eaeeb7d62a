"""``mxcompile selftest``: is everything in place?"""

import click

from mxcompile.commands.options import json_option, print_json
from mxcompile.errors import RuntimeLibraryError


@click.command("selftest")
@json_option
def selftest_command(as_json: bool) -> None:
    """Checks the custom-op library, onnxruntime, and known answers of every format."""
    from mxcompile import display
    from mxcompile.selftest import selftest

    report = selftest()
    if as_json:
        print_json(report.to_dict())
    else:
        display.show_selftest(report)
    if report.failed:
        first = report.failed[0]
        found = f"selftest: {len(report.failed)} of {len(report.checks)} checks failed, first {first.name}"
        advice = "" if report.library is None else "; reinstall: pip install --force-reinstall mxcompile onnxruntime"
        raise RuntimeLibraryError(f"{found}: {first.detail}{advice}")
