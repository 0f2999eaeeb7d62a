"""Size of the demo model: the files, and the bits that a quantized weight takes. Goal: 4.5 bits for amxfp4."""

import tempfile
from pathlib import Path

from common import Table, export_demo, parser, report

from mxcompile.compiler import compile_model
from mxcompile.formats import FORMATS, NONE, get_format

FORMATS_AND_BLOCKS = [
    get_format(f"{name}_b{size}" if size else name).name for name, fmt in FORMATS.items() for size in fmt.block_sizes
]


def main() -> None:
    """Compiles, measures and prints."""
    arguments = parser("size of the demo model in every format").parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        plain = export_demo(Path(folder))
        size = plain.stat().st_size
        rows.append((NONE, 32.0, size / 1e6, 1.0))
        for name in FORMATS_AND_BLOCKS:
            output = Path(folder, f"{name}.onnx")
            compiled = compile_model(plain, format=name, output=output)
            small = output.stat().st_size
            rows.append((name, compiled.bits_per_weight, small / 1e6, size / small))
    columns = {"format": "", "bits per quantized weight": "g", "file MB": ".2f", "times smaller": ".2f"}
    report(arguments, Table("Size of the demo model (embedding and lm_head stay in float32)", columns, rows))


if __name__ == "__main__":
    main()
