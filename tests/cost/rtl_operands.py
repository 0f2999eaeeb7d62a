"""Operands for units with block scales; for 4-bit floating-point codes random, extreme, and with long sums."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rtl_simulation import pack_lanes


@dataclasses.dataclass(frozen=True)
class Operands:
    """What a unit gets: codes ``[clocks, 32]``, scale bytes ``[clocks, s]``, and where sums begin ``[clocks]``."""

    a: npt.NDArray[np.uint8]
    b: npt.NDArray[np.uint8]
    a_scale: npt.NDArray[np.uint8]
    b_scale: npt.NDArray[np.uint8]
    clear: npt.NDArray[np.bool_]

    def ports(self, bits: int = 4) -> dict[str, tuple[int, Sequence[int]]]:
        """The inputs of `rtl_simulation.simulate`, for codes of so many bits."""
        size = 8 * self.a_scale.shape[1]
        return {
            "clear": (1, self.clear.astype(int).tolist()),
            "a": (32 * bits, pack_lanes(self.a, bits)),
            "b": (32 * bits, pack_lanes(self.b, bits)),
            "a_scale": (size, pack_lanes(self.a_scale, 8)),
            "b_scale": (size, pack_lanes(self.b_scale, 8)),
        }


def joined(parts: Sequence[Operands]) -> Operands:
    """One sequence after the other."""
    fields = [field.name for field in dataclasses.fields(Operands)]
    return Operands(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields})
