"""``mxcompile conformance``: golden vectors, written or checked."""

from pathlib import Path

import click

from mxcompile.commands.options import json_option, print_json
from mxcompile.errors import FormatError


@click.command("conformance")
@click.option("-o", "--output", metavar="DIR", help="Write FORMAT.npz for every format, and manifest.json.")
@click.option("--check", "file", metavar="FILE.npz", help="Compare another tool's arrays with ours.")
@click.option("--format", "formats", multiple=True, help="Only this format; repeatable with -o.")
@click.option("--force", is_flag=True, help="Replace existing output.")
@json_option
def conformance_command(
    output: str | None, file: str | None, formats: tuple[str, ...], force: bool, as_json: bool
) -> None:
    """Writes golden vectors of the formats with -o, or compares another tool's output with ours by --check.

    The vectors are inputs, codes, scales, decoded values and dot products with their integer sums. A file to check has
    any of these arrays under the same names; the first difference of each is told in bits.
    """
    from mxcompile import conformance, conformance_check, display

    if output is not None and file is None:
        entries = conformance.write_vectors(output, formats, force=force)["formats"]
        manifest = Path(output).expanduser() / conformance.MANIFEST
        if as_json:
            print_json({"manifest": str(manifest), "files": [entry["file"] for entry in entries]})
        else:
            display.show_vectors(entries, manifest)
    elif file is not None and output is None and len(formats) <= 1 and not force:
        report = conformance_check.check_vectors(file, next(iter(formats), None))
        if as_json:
            print_json(report.to_dict())
        else:
            display.show_check(report)
        if report.failed:
            raise FormatError(str(report))
    else:
        raise click.UsageError("either -o DIR, or --check FILE.npz with at most one --format and without --force")
