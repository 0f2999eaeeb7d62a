"""The text that the demo model was not trained on: files of the running interpreter's standard library.

Usage::

    python examples/heldout.py > heldout.txt
    python examples/heldout.py dataclasses.py typing.py > two-modules.txt
"""

import argparse
import json
import logging
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

HELD_OUT_LIST = Path(__file__).parent / "demo-model" / "heldout_files.json"

MODULES = ("dataclasses.py", "typing.py", "mimetypes.py", "copy.py", "posixpath.py")
"""Five held-out modules that every installation of Python has, tests or not: the text of the published figures."""


def standard_library() -> Path:
    """Folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def held_out_files() -> list[str]:
    """Paths of the held-out files below the standard library, in the order of the list."""
    return [name.lstrip("/") for name in json.loads(HELD_OUT_LIST.read_text("utf-8"))["held"]]


def read_heldout_text(names: Iterable[str] | None = None, root: Path | None = None) -> str:
    """Reads held-out files and joins their text, in the order of their names.

    Files that are missing (distributions of Python may leave out the tests) are logged and skipped.

    Args:
        names: Paths below `root`; None takes the whole list.
        root: Folder of the standard library; None takes the running interpreter's.

    Raises:
        ValueError: A name that is not on the list: the model was trained on it.
        FileNotFoundError: None of the files exists.
    """
    root = standard_library() if root is None else root
    held_out = held_out_files()
    names = held_out if names is None else list(names)
    if trained := sorted(set(names) - set(held_out)):
        raise ValueError(f"{trained[0]}: not held out, the model was trained on it; choose from {HELD_OUT_LIST.name}")
    found = [name for name in names if (root / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{root}: has none of {', '.join(names)}; is it the standard library of a Python?")
    if missing := [name for name in names if name not in found]:
        logger.warning("%s: %d files are missing and skipped: %s", root, len(missing), ", ".join(missing))
    return "".join((root / name).read_text("utf-8") for name in found)


def main() -> None:
    """Writes the text to the standard output, and the names of missing files to the standard error."""
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(description="print the text that the demo model was not trained on")
    parser.add_argument("files", nargs="*", help="paths below the standard library (default: the whole list)")
    try:
        sys.stdout.write(read_heldout_text(parser.parse_args().files or None))
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
