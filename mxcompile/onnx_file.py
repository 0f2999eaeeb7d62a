"""ONNX files read and written without their weights in memory.

A single-file model is not parsed as one protobuf message of gigabytes: ``read_model`` walks its wire format
over a memory map, hands protobuf the file without the big weights, and gives each of those an
``onnx_ir.ExternalTensor`` that points into the file. ``write_model`` goes the same way back: it serializes
the model without its big weights, then streams every weight into its place. Beside the graph itself, at most
one weight is in memory.
"""

import contextlib
import mmap
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from mxcompile import _wire
from mxcompile.errors import ExportError, UnsupportedModelError

TARGET_OPSET = 21
"""The ai.onnx opset of every model inside this compiler (the newest that onnxruntime 1.20 reads)."""

MIN_OPSET = 11
"""The oldest ai.onnx opset that can be converted to TARGET_OPSET."""

MAX_INLINE_BYTES = 1_500_000_000
"""Weights above this total go to ``<name>.onnx.data``: a protobuf message must stay below 2 GiB."""

DETACH_BYTES = 1024
"""Weights from this size on stay on disk when read, and are streamed when written."""

MAPPED_BYTES = 1 << 16
"""Weights from this size on start at a multiple of their element's size: they can be used from a mapped file."""

_ALIGNMENT = 4096  # Of each weight in a data file: the ONNX documentation asks for it, for memory mapping.
_PAYLOAD = "mxcompile:payload"  # The location that marks a weight which is streamed into its place.
_LFS_POINTER = b"version https://git-lfs"


def read_model(path: str | Path, *, compiled: bool = False) -> ir.Model:
    """Reads an ONNX file; its weights stay on disk until somebody asks for their values.

    Args:
        path: The .onnx file; its weights are inside, or in files beside it.
        compiled: Also accept what this compiler wrote, and any opset.

    Returns:
        The model. Every initializer of DETACH_BYTES or more is an ``onnx_ir.ExternalTensor`` with an absolute
        path, memory-mapped at the first ``numpy()``, unmapped by ``release()``. The files must outlive it.

    Raises:
        ExportError: The file, or a data file it names, is missing, cut off, or not ONNX.
        UnsupportedModelError: An opset that cannot be converted, or a model that is already compiled.
    """
    path = Path(path)
    proto = _read_skeleton(path)
    if not proto.HasField("graph") or not proto.opset_import:
        raise ExportError(f"{path}: not an ONNX model: it has no graph or no opset; give an .onnx file")
    if not compiled:
        _check_source(proto, path)
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx_ir wraps whatever it meets in a SerdeError, or lets it through
        cause = str(error.__cause__ or error).splitlines()[0]
        raise ExportError(f"{path}: not a valid ONNX model: {cause}; export it again") from error
    _locate_weights(model, path)
    return model


def write_model(model: ir.Model, path: str | Path, *, max_inline_bytes: int = MAX_INLINE_BYTES) -> int:
    """Writes an ONNX file, whole or not at all; an existing file is replaced.

    Weights are streamed, one at a time. When all of them together exceed ``max_inline_bytes``, those of
    DETACH_BYTES or more go to ``<path>.data``, which the file names. The model is unchanged afterwards;
    weights that it kept in the replaced file itself can no longer be read.

    Returns:
        Bytes written, the data file included.

    Raises:
        ExportError: The folder is missing or not writable, the disk is full, or a weight cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        raise ExportError(f"{path}: is a directory; name an .onnx file")
    if not path.parent.is_dir():
        raise ExportError(f"{path}: there is no directory {path.parent}; create it first")
    with _detached_payloads(model) as payloads:
        skeleton = ir.to_proto(model).SerializeToString()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    data = path.with_name(path.name + ".data")
    temporary_data = temporary.with_name(temporary.name + ".data")
    inline = sum(tensor.nbytes for tensor in payloads) <= max_inline_bytes
    try:
        layout: dict[int, int] = {} if inline else _write_data(payloads, temporary_data)
        segments = _wire.rewrite(skeleton, lambda t: _attach(t, payloads, layout, data.name))
        _align(segments)
        with temporary.open("xb") as file:
            for segment in segments:
                _write_segment(file, segment)
            size = file.tell()
        if layout:
            size += temporary_data.stat().st_size
            temporary_data.replace(data)
        temporary.replace(path)
        return size
    except OSError as error:
        cause = error.strerror or error
        raise ExportError(f"{path}: could not be written: {cause}; nothing was left behind") from error
    finally:
        temporary.unlink(missing_ok=True)
        temporary_data.unlink(missing_ok=True)


def _read_skeleton(path: Path) -> onnx.ModelProto:
    """Returns the file's message, its big weights replaced by references into the file."""
    if path.is_dir():
        raise ExportError(f"{path}: is a directory; name the .onnx file in it")
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS_POINTER))
            if not head:
                raise ExportError(f"{path}: the file is empty; download or export it again")
            if head == _LFS_POINTER:
                raise ExportError(f"{path}: is a Git LFS pointer, not the model itself; run `git lfs pull`")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
                location = str(path.resolve())
                segments = _wire.rewrite(buffer, lambda t: _detach(t, location))
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror or error}; give an .onnx file") from error
    except _wire.MalformedError as error:
        raise ExportError(f"{path}: cut off, or not an ONNX file: {error}; download or export it again") from error
    skeleton = onnx.ModelProto()
    try:
        skeleton.ParseFromString(b"".join(s for s in segments if isinstance(s, bytes)))
    except DecodeError as error:
        raise ExportError(f"{path}: not an ONNX file: protobuf cannot decode it; give an .onnx file") from error
    return skeleton


def _detach(tensor: _wire.Message, location: str) -> list[_wire.Segment]:
    """Replaces a big raw_data by where it lies in the file."""
    raw = [field for field in tensor.fields if field.number == _wire.TENSOR_RAW_DATA]
    if len(raw) != 1 or raw[0].end - raw[0].payload < DETACH_BYTES:
        return [tensor.encoded()]
    reference = onnx.TensorProto()
    set_external(reference, location, raw[0].payload, raw[0].end - raw[0].payload)
    return [tensor.encoded(without=(_wire.TENSOR_RAW_DATA,)) + reference.SerializeToString()]


def set_external(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Says in a tensor without data where they are: a file, and the bytes in it."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def _check_source(proto: onnx.ModelProto, path: Path) -> None:
    domains = {opset.domain: opset.version for opset in proto.opset_import}
    if "mxcompile" in domains or any(entry.key == "mxcompile.version" for entry in proto.metadata_props):
        raise UnsupportedModelError(f"{path}: already compiled by mxcompile; give the model it was made from")
    opset = domains.get("", domains.get("ai.onnx", 0))
    if not MIN_OPSET <= opset <= TARGET_OPSET:
        raise UnsupportedModelError(
            f"{path}: ai.onnx opset {opset} is not in {MIN_OPSET}..{TARGET_OPSET}; export again at opset 18"
        )


def _locate_weights(model: ir.Model, path: Path) -> None:
    """Checks every weight on disk and gives it an absolute path; loads those that are attributes."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _located(value.const_value, path)
        for node in graph:
            for name, attribute in node.attributes.items():
                if isinstance(attribute.value, ir.ExternalTensor):
                    tensor = _located(attribute.value, path)
                    values = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
                    node.attributes[name] = ir.AttrTensor(name, values)
                    tensor.release()


def _located(tensor: ir.ExternalTensor, path: Path) -> ir.ExternalTensor:
    """Returns the tensor with an absolute path, after a look at the file behind it."""
    where = f"{path}: the weight `{tensor.name}`"
    file = (path.parent / tensor.location).resolve()
    # A hub cache holds symbolic links into one folder of blobs: both folders are the model's own. Anything
    # else could make a downloaded model read any file of this machine.
    own = (path.parent.resolve(), path.resolve().parent)
    if not any(file.is_relative_to(folder) for folder in own):
        raise ExportError(f"{where} is in {file}, outside the model's folder; put that file beside the model")
    if not file.is_file():
        raise ExportError(f"{where} is in {file}, which is missing; put that file beside the model")
    offset = tensor.offset or 0
    length = tensor.nbytes if tensor.length is None else tensor.length
    if length != tensor.nbytes:
        raise ExportError(
            f"{where} has {length} bytes, but {tensor.dtype.name}{list(tensor.shape)} needs {tensor.nbytes}; "
            "export the model again"
        )
    size = file.stat().st_size
    if offset + length > size:
        raise ExportError(
            f"{where} ends at byte {offset + length} of {file}, which has {size} bytes; download that file again"
        )
    return ir.ExternalTensor(
        str(file),
        offset,
        length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


@contextlib.contextmanager
def _detached_payloads(model: ir.Model) -> Iterator[list[ir.TensorProtocol]]:
    """Takes the weights to be streamed out of the model while the context is open; yields them in order."""
    taken: list[tuple[ir.Value, ir.TensorProtocol]] = []
    try:
        for graph in model.graphs():
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.dtype == ir.DataType.STRING:
                    continue
                if tensor.nbytes >= DETACH_BYTES or isinstance(tensor, ir.ExternalTensor):
                    value.const_value = ir.ExternalTensor(
                        _PAYLOAD,
                        len(taken),
                        tensor.nbytes,
                        tensor.dtype,
                        shape=ir.Shape(tensor.shape.numpy()),
                        name=value.name or "",
                        doc_string=tensor.doc_string,
                        metadata_props=dict(tensor.metadata_props),
                    )
                    tensor.name = value.name  # As onnx_ir does when it serializes
                    taken.append((value, tensor))
        yield [tensor for _, tensor in taken]
    finally:
        for value, tensor in taken:
            value.const_value = tensor


def _attach(
    tensor: _wire.Message, payloads: Sequence[ir.TensorProtocol], layout: dict[int, int], data_name: str
) -> list[_wire.Segment]:
    """Gives a taken-out weight its bytes, or its place in the data file when ``layout`` has one."""
    if not any(field.number == _wire.TENSOR_EXTERNAL_DATA for field in tensor.fields):
        return [tensor.encoded()]
    proto = onnx.TensorProto.FromString(tensor.encoded())
    entries = {entry.key: entry.value for entry in proto.external_data}
    if entries["location"] != _PAYLOAD:
        raise ValueError(f"the weight `{proto.name}` is an external tensor outside the initializers")
    index = int(entries["offset"])
    if index in layout:
        set_external(proto, data_name, layout[index], payloads[index].nbytes)
        return [proto.SerializeToString()]
    # Fields stay in ascending order, as protobuf itself writes them.
    external = (_wire.TENSOR_EXTERNAL_DATA, _wire.TENSOR_DATA_LOCATION)
    payload = payloads[index]
    before = tensor.encoded(without=external, to=_wire.TENSOR_RAW_DATA)
    after = tensor.encoded(without=external, start=_wire.TENSOR_RAW_DATA + 1)
    header = _wire.length_delimited(_wire.TENSOR_RAW_DATA, payload.nbytes)
    if room := _room(payload):
        return [before, _type_again(payload, 0), header, payload, _type_again(payload, room), after]
    return [before, header, payload, after]


def _room(payload: ir.TensorProtocol) -> int:
    """By how many bytes a payload must be shifted at most to stand at a multiple of its element's size."""
    size = payload.dtype.itemsize
    return int(size) - 1 if payload.nbytes >= MAPPED_BYTES and 1 < size <= 8 else 0


def _type_again(payload: ir.TensorProtocol, extra: int) -> bytes:
    """A field that says what is said already, that the weight has elements of this type."""
    return _wire.varint_field(_wire.TENSOR_DATA_TYPE, payload.dtype.value, extra)


def _align(segments: list[_wire.Segment]) -> None:
    """Shifts big payloads to multiples of their element's size.

    By as much as the field before a payload grows, the one after it shrinks, so that all lengths stay.
    """
    position = 0
    for index, segment in enumerate(segments):
        if isinstance(segment, bytes):
            position += len(segment)
            continue
        if room := _room(segment):
            shift = -position % (room + 1)
            segments[index - 2] = _type_again(segment, shift)
            segments[index + 1] = _type_again(segment, room - shift)
            position += shift
        position += segment.nbytes


def _write_data(payloads: Iterable[ir.TensorProtocol], path: Path) -> dict[int, int]:
    """Writes the big weights to a data file; returns the offset of each, by its index."""
    layout = {}
    with path.open("xb") as file:
        for index, tensor in enumerate(payloads):
            if tensor.nbytes >= DETACH_BYTES:
                file.write(bytes(-file.tell() % _ALIGNMENT))
                layout[index] = file.tell()
                _write_segment(file, tensor)
    return layout


def _write_segment(file: BinaryIO, segment: _wire.Segment) -> None:
    if isinstance(segment, bytes):
        file.write(segment)
        return
    start = file.tell()
    if isinstance(segment, ir.ExternalTensor | ir.LazyTensor | ir.Tensor):
        segment.tofile(file)  # From file to file without a copy in this process
    else:
        file.write(segment.tobytes())
    if file.tell() - start != segment.nbytes:
        raise ValueError(f"`{segment.name}`: {file.tell() - start} bytes, its shape needs {segment.nbytes}")
