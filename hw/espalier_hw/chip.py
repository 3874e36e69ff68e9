"""What differs between the chips that the design is made for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """In place of a board's platform, where a unit is made for a chip alone."""

    device: str


ECP5 = Chip("LFE5U-85F")


def is_ecp5(platform: object) -> bool:
    """Whether `platform` is a Lattice ECP5. Without a platform the design is for a Cyclone V.

    An ECP5's multipliers have 18 x 18 bits, a Cyclone V's 27 x 27; and its distributed memory can
    be read in the cycle after a write, which an MLAB cannot. Units that care keep their latencies,
    so that one model of cycles holds for both.

    Source: Lattice FPGA-TN-02205, ECP5 and ECP5-5G sysDSP Usage Guide; FPGA-TN-02204, ECP5 and
    ECP5-5G Memory Usage Guide, distributed RAM.
    """
    return str(getattr(platform, "device", "")).startswith("LFE5U")
