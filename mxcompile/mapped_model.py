"""A model whose big weights stay in its .onnx file, to be mapped from there.

onnxruntime maps weights from a data file, but copies those that stand inside the .onnx file; and only mapped memory
can be given back once the custom ops have packed the weights. So it is given the model without its big weights, and
the .onnx file as their data file.
"""

import math
import mmap
import os
from pathlib import Path
from typing import Final, NamedTuple

import onnx
from google.protobuf.message import DecodeError

from mxcompile import _wire
from mxcompile.onnx_file import MAPPED_BYTES, set_external

_ELEMENT_BYTES: Final = {
    onnx.TensorProto.UINT8: 1,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.BFLOAT16: 2,
    onnx.TensorProto.FLOAT: 4,
}


class MappedModel(NamedTuple):
    """A model and the file that holds its big weights.

    Attributes:
        content: The serialized ModelProto; big weights are external data in the file.
        file: The file, an absolute path without symbolic links.
        stat: What the file was when it was read.
    """

    content: bytes
    file: Path
    stat: os.stat_result

    def is_current(self) -> bool:
        """Whether the file is still the one that was read."""
        try:
            return _identity(self.file.stat()) == _identity(self.stat)
        except OSError:
            return False


class _ExternalDataError(ValueError):
    pass


def read_mapped(path: Path, *, absolute: bool) -> MappedModel | None:
    """Reads a model without its big weights.

    Left out are weights of MAPPED_BYTES or more in the main graph, of bytes or of floats that stand at a multiple of
    their size, as `onnx_file.write_model` writes them. Everything else is copied as it is.

    Args:
        path: The .onnx file.
        absolute: Name the file by its whole path in the model, not relative to its folder.

    Returns:
        The model; None if that gains nothing (what stays in the model is copied twice on the way: that must not be
        more than what is mapped), or if the file has data files already, or is not what it should be.
    """
    try:
        file = path.resolve()
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            stat = os.fstat(opened.fileno())
            location = str(file) if absolute else file.name
            segments = _wire.rewrite(buffer, lambda tensor: _detach(tensor, location), subgraphs=False)
    except (OSError, ValueError, DecodeError):  # whoever opens the file itself says what is wrong
        return None
    content = b"".join(segment for segment in segments if isinstance(segment, bytes))
    return MappedModel(content, file, stat) if len(content) <= stat.st_size // 2 else None


def _detach(tensor: _wire.Message, location: str) -> list[_wire.Segment]:
    """Replaces the bytes of a big weight by their place in the file."""
    rest = tensor.encoded(without=(_wire.TENSOR_RAW_DATA,))
    proto = onnx.TensorProto.FromString(rest)
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        raise _ExternalDataError("the model has data files")
    raw = [field for field in tensor.fields if field.number == _wire.TENSOR_RAW_DATA]
    element = _ELEMENT_BYTES.get(proto.data_type, 0)
    size = math.prod(proto.dims) * element
    if size < MAPPED_BYTES or len(raw) != 1 or raw[0].end - raw[0].payload != size or raw[0].payload % element:
        return [tensor.encoded()]
    set_external(proto, location, raw[0].payload, size)
    return [proto.SerializeToString()]


def _identity(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
