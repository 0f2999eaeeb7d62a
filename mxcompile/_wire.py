"""The protobuf wire format, as far as it takes to lift weights out of an ONNX file and to put them back.

Source: protobuf.dev "Encoding"; field numbers of onnx.proto (ONNX IR version 10).
"""

import dataclasses
import mmap
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import onnx_ir as ir

Buffer = bytes | mmap.mmap
Children = Mapping[str, Mapping[int, str]]
Segment = bytes | ir.TensorProtocol  # A tensor stands for its own bytes, `nbytes` of them.

TENSOR_DATA_TYPE = 2
TENSOR_RAW_DATA = 9
TENSOR_EXTERNAL_DATA = 13
TENSOR_DATA_LOCATION = 14

_LENGTH_DELIMITED = 2
_FIXED_SIZE = {1: 8, 5: 4}
# The way from a model to its initializers: message -> field number -> message of that field. Tensors in
# attributes and in functions are small constants; they stay where they are.
_CHILDREN = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {6: "graph", 11: "graph"},
}
_MAIN_GRAPH = {"model": {7: "graph"}, "graph": {5: "tensor"}}


class MalformedError(ValueError):
    """Bytes that are not a protobuf message; says what was found and where."""


class Field(NamedTuple):
    """One field of a message: its tag is at [start, payload), its contents at [payload, end)."""

    number: int
    wire_type: int
    start: int
    payload: int
    end: int


@dataclasses.dataclass(frozen=True)
class Message:
    """The fields of one message inside a buffer."""

    buffer: Buffer
    fields: tuple[Field, ...]

    def encoded(self, *, without: tuple[int, ...] = (), start: int = 0, to: int = 1 << 29) -> bytes:
        """Returns the fields numbered ``start`` up to, not including, ``to``, less those in ``without``."""
        kept = (f for f in self.fields if start <= f.number < to and f.number not in without)
        return b"".join(self.buffer[field.start : field.end] for field in kept)


def rewrite(
    buffer: Buffer, on_initializer: Callable[[Message], list[Segment]], *, subgraphs: bool = True
) -> list[Segment]:
    """Rewrites every initializer of a ModelProto and the lengths of the messages around it.

    Args:
        buffer: The serialized ModelProto.
        on_initializer: Given the fields of a TensorProto, returns what takes its place.
        subgraphs: Whether those of subgraphs are rewritten too.

    Returns:
        The pieces of the new ModelProto, in order. All other fields are copied as they are.

    Raises:
        MalformedError: The buffer is not a whole ModelProto.
    """
    return _rewrite(buffer, 0, len(buffer), "model", _CHILDREN if subgraphs else _MAIN_GRAPH, on_initializer)


def length_delimited(number: int, size: int) -> bytes:
    """Returns the head of a length-delimited field of ``size`` bytes: tag and length."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(size)


def varint_field(number: int, value: int, extra: int) -> bytes:
    """Returns a field with a number below 128 that takes ``extra`` bytes, up to 8, more than it needs."""
    encoded = bytes([value | 0x80, *[0x80] * (extra - 1), 0]) if extra else bytes([value])
    return _varint(number << 3) + encoded


def _rewrite(
    buffer: Buffer,
    start: int,
    end: int,
    message: str,
    children: Children,
    on_initializer: Callable[[Message], list[Segment]],
) -> list[Segment]:
    segments: list[Segment] = []
    copied = start
    for field in _fields(buffer, start, end):
        child = children[message].get(field.number)
        if child is None:
            continue
        if field.wire_type != _LENGTH_DELIMITED:
            raise MalformedError(f"byte {field.start}: field {field.number} of a {message} is not a message")
        if child == "tensor":
            tensor = Message(buffer, tuple(_fields(buffer, field.payload, field.end)))
            inner = on_initializer(tensor)
        else:
            inner = _rewrite(buffer, field.payload, field.end, child, children, on_initializer)
        size = sum(len(s) if isinstance(s, bytes) else s.nbytes for s in inner)
        segments += [buffer[copied : field.start], length_delimited(field.number, size), *inner]
        copied = field.end
    segments.append(buffer[copied:end])
    return segments


def _fields(buffer: Buffer, start: int, end: int) -> Iterator[Field]:
    while start < end:
        tag, payload = _read_varint(buffer, start, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            stop = _read_varint(buffer, payload, end)[1]
        elif wire_type == _LENGTH_DELIMITED:
            size, payload = _read_varint(buffer, payload, end)
            stop = payload + size
        elif wire_type in _FIXED_SIZE:
            stop = payload + _FIXED_SIZE[wire_type]
        else:
            raise MalformedError(f"byte {start}: no field has wire type {wire_type}")
        if number == 0:
            raise MalformedError(f"byte {start}: no field has number 0")
        if stop > end:
            raise MalformedError(f"byte {start}: field {number} ends at {stop}, but the data at {end}")
        yield Field(number, wire_type, start, payload, stop)
        start = stop


def _read_varint(buffer: Buffer, start: int, end: int) -> tuple[int, int]:
    """Returns the number at ``start`` and the position after it."""
    value = shift = 0
    for position in range(start, min(end, start + 10)):
        byte = buffer[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise MalformedError(f"byte {start}: a number runs past the end of the data, {end}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
