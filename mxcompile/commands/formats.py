"""``mxcompile formats``: the table of number formats."""

import click

from mxcompile.commands.options import json_option, print_json


@click.command("formats")
@json_option
def formats_command(as_json: bool) -> None:
    """Lists the number formats."""
    from mxcompile import display
    from mxcompile.formats import FORMATS

    formats = list(FORMATS.values())
    if not as_json:
        display.show_formats(formats)
        return
    rows = [
        {
            "name": fmt.name,
            "element": fmt.element.name,
            "block_size": fmt.block_size,
            "block_sizes": fmt.block_sizes,
            "scale": fmt.scale_type,
            "scales_per_block": fmt.scales_per_block,
            "bits_per_element": fmt.bits_per_element,
            "description": fmt.description,
        }
        for fmt in formats
    ]
    print_json({"formats": rows})
