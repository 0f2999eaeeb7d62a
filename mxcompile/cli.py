"""The command line: a group of the commands in ``mxcompile.commands``, and how errors end it."""

from typing import Any

import click

from mxcompile.commands.compare import compare_command
from mxcompile.commands.compile import compile_command
from mxcompile.commands.conformance import conformance_command
from mxcompile.commands.cost import cost_command
from mxcompile.commands.evaluate import eval_command
from mxcompile.commands.formats import formats_command
from mxcompile.commands.run import run_command
from mxcompile.commands.search import search_command
from mxcompile.commands.selftest import selftest_command
from mxcompile.commands.sensitivity import sensitivity_command
from mxcompile.errors import MxCompileError

_EPILOG = """\b
Examples:
  mxcompile Qwen/Qwen3-0.6B --format amxfp4 -o qwen3.onnx
  mxcompile run qwen3.onnx --prompt "def main"
  mxcompile eval qwen3.onnx --reference Qwen/Qwen3-0.6B --data text.txt
  mxcompile compare Qwen/Qwen3-0.6B --formats amxfp4,mxfp4,dint4 --data text.txt
  mxcompile selftest

`mxcompile compile --help` tells all options of the compiler. A model folder
that is called like a command: mxcompile compile run -o out.onnx
"""


class CommandGroup(click.Group):
    """A group whose default command is ``compile``, and that turns our errors into one red line and exit code 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts ``compile`` in front of what is neither a command nor an option of the group."""
        own = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        if args and args[0] not in self.commands and args[0] not in own:
            args = ["compile", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except MxCompileError as error:
            click.secho(f"error: {' '.join(str(error).splitlines())}", fg="red", err=True)
            ctx.exit(1)


@click.group(cls=CommandGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mxcompile", message="%(prog)s %(version)s")
def cli() -> None:
    """Compiles Hugging Face models to 4-bit block-scaled ONNX: mxcompile MODEL --format amxfp4 -o out.onnx.

    MODEL is a hub id, a Hugging Face folder, or an .onnx file. `compile` is what happens if no command is named.
    """


for _command in (
    compile_command,
    run_command,
    eval_command,
    compare_command,
    cost_command,
    sensitivity_command,
    search_command,
    formats_command,
    conformance_command,
    selftest_command,
):
    cli.add_command(_command)


def main() -> None:
    """The console entry point."""
    cli(prog_name="mxcompile")


if __name__ == "__main__":
    main()
