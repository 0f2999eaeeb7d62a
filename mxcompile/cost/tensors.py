"""What is known of a value before the model runs, and of the call of an operator whose rules ask for it."""

import dataclasses
from collections.abc import Mapping, Set
from typing import Any, Final, Literal

import onnx_ir as ir

from mxcompile.cost.quantities import Quantity, add, ceil_divide, is_negative, multiply, product

Dims = tuple[Quantity, ...]
Elements = tuple[Quantity | None, ...]
"""The numbers in a vector, or the one of a scalar; None for one that is only known at run time."""

Origin = Literal["activation", "constant", "cache"]
"""Where a value comes from: computed in this run, the same in every run, or kept from one run to the next."""

LAST: Final = 2**31 - 1
"""Ends of slices from here on mean "up to the last"."""


class UnknownError(Exception):
    """Something that a rule needs does not follow from the graph; the message says what."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Where block-quantized elements come from.

    Attributes:
        format: Name of the format.
        codes: Their codes.
        scales: Their scales.
    """

    format: str
    codes: "Tensor"
    scales: "Tensor"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What is known of a value.

    Attributes:
        name: Its name in the model.
        dtype: Type of its elements.
        dims: Its dimensions; None if they do not follow from the graph, then `unknown` says why.
        elements: Of short vectors and scalars of integers and booleans what is in them.
        origin: Where it comes from.
        source: The tensor of the weights or of the cache that only moves lie between; None if it is that itself.
        decoded: What it is decoded from, if only moves lie between.
        unknown: Why its dimensions are unknown.
    """

    name: str
    dtype: ir.DataType | None
    dims: Dims | None
    elements: Elements | None = None
    origin: Origin = "activation"
    source: "Tensor | None" = None
    decoded: Decoded | None = None
    unknown: str = ""

    @property
    def size(self) -> Quantity:
        """How many elements it has.

        Raises:
            UnknownError: Its dimensions are.
        """
        if self.dims is None:
            raise UnknownError(self.unknown or f"the dimensions of {self.name} do not follow from the graph")
        return product(self.dims)

    @property
    def nbytes(self) -> Quantity:
        """How many bytes it has; elements of less than a byte are packed.

        Raises:
            UnknownError: Its dimensions or its type are.
        """
        if self.dtype is None:
            raise UnknownError(f"the type of {self.name} does not follow from the graph")
        if self.dtype is ir.DataType.STRING:
            raise UnknownError(f"{self.name} holds strings, whose length is not known")
        bits = self.dtype.bitwidth
        if bits % 8 == 0:
            return multiply(self.size, bits // 8)
        return ceil_divide(multiply(self.size, bits), 8)

    @property
    def is_static(self) -> bool:
        """Whether it is the same in every run, however large the run."""
        return self.origin == "constant" and self.dims is not None and all(isinstance(dim, int) for dim in self.dims)

    @property
    def stored(self) -> "Tensor":
        """The tensor of weights or cache behind the moves; itself, if there are none."""
        return self.source or self


@dataclasses.dataclass(frozen=True)
class Call:
    """A node with what is known of its inputs.

    Attributes:
        op_type: Operator.
        domain: Its domain.
        name: Name of the node; its path, in a subgraph or a function.
        inputs: What it reads; None for an optional input that is left out.
        attributes: Its attributes, those of the function around it filled in.
        outputs: How many results it has.
        sizes: Quantities that are the size of something, so at least 0.
        counted: What a dimension is called that depends on the data.
    """

    op_type: str
    domain: str
    name: str
    inputs: tuple[Tensor | None, ...]
    attributes: Mapping[str, ir.Attr]
    outputs: int
    sizes: Set[Quantity] = frozenset()
    counted: str = ""

    def has(self, index: int) -> bool:
        """Whether the optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def input(self, index: int) -> Tensor:
        """An input.

        Raises:
            UnknownError: It is left out.
        """
        tensor = self.inputs[index] if index < len(self.inputs) else None
        if tensor is None:
            raise UnknownError(f"{self.op_type} has no input {index}")
        return tensor

    def dims(self, index: int) -> Dims:
        """The dimensions of an input.

        Raises:
            UnknownError: They are.
        """
        tensor = self.input(index)
        if tensor.dims is None:
            raise UnknownError(tensor.unknown or f"the dimensions of {tensor.name} do not follow from the graph")
        return tensor.dims

    def elements(self, index: int) -> Elements:
        """What is in an input.

        Raises:
            UnknownError: It is.
        """
        tensor = self.input(index)
        if tensor.elements is None:
            raise UnknownError(f"what is in {tensor.name} is known at run time only")
        return tensor.elements

    def numbers(self, index: int) -> tuple[Quantity, ...]:
        """What is in an input, none of it unknown.

        Raises:
            UnknownError: Some of it is.
        """
        known = [each for each in self.elements(index) if each is not None]
        if len(known) < len(self.elements(index)):
            raise UnknownError(f"what is in {self.input(index).name} is known at run time only")
        return tuple(known)

    def ints(self, index: int) -> tuple[int, ...]:
        """What is in an input, none of it depending on dimensions.

        Raises:
            UnknownError: Some of it does.
        """
        known = [each for each in self.numbers(index) if isinstance(each, int)]
        if len(known) < len(self.numbers(index)):
            raise UnknownError(f"what is in {self.input(index).name} is known at run time only")
        return tuple(known)

    def value(self, name: str, default: Any) -> Any:
        """An attribute, or the default."""
        attribute = self.attributes.get(name)
        return default if attribute is None else attribute.value

    def axes(self, index: int, name: str = "axes") -> tuple[int, ...] | None:
        """Integers that older opsets have in an attribute, newer ones in an input; None if there are none.

        Raises:
            UnknownError: They are known at run time only.
        """
        if name in self.attributes:
            return tuple(self.attributes[name].as_ints())
        return self.ints(index) if self.has(index) else None

    def axis(self, default: int, rank: int) -> int:
        """The attribute ``axis``, counted from the front."""
        axis: int = self.value("axis", default)
        return axis % rank if rank else 0


def from_front(index: Quantity, size: Quantity) -> Quantity:
    """A position that may count from the end, counted from the front."""
    return add(size, index) if is_negative(index) else index
