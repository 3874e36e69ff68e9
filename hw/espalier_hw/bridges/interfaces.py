"""The ports of the Cyclone V's processor system, as its hard blocks drive them."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib.wiring import In, Out, Signature

from espalier.spec.config import BEAT_BYTES

from ..interfaces import ADDRESS_BITS, BEAT_BITS


class Axi3(Signature):
    """The lightweight bridge's AXI3 master: 32 bits of data, 21 of address, 12 of id.

    Bursts of up to 16 beats of any kind. Lock, cache and protection bits are left out: the bridge
    has no use for them. Source: Cyclone V Hard Processor System Technical Reference Manual,
    HPS-FPGA bridges.
    """

    def __init__(self) -> None:
        def address(prefix: str) -> dict:
            return {
                f"{prefix}id": Out(12),
                f"{prefix}addr": Out(21),
                f"{prefix}len": Out(4),
                f"{prefix}size": Out(3),
                f"{prefix}burst": Out(2),
                f"{prefix}valid": Out(1),
                f"{prefix}ready": In(1),
            }

        super().__init__(
            {
                **address("aw"),
                "wid": Out(12),
                "wdata": Out(32),
                "wstrb": Out(4),
                "wlast": Out(1),
                "wvalid": Out(1),
                "wready": In(1),
                "bid": In(12),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                **address("ar"),
                "rid": In(12),
                "rdata": In(32),
                "rresp": In(2),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class SdramPort(Signature):
    """Master of a 128-bit FPGA-to-SDRAM port in its Avalon-MM mode.

    `address` is in bytes, a multiple of 16. A command is taken in the cycle in which `read` or
    `write` is 1 and `waitrequest` 0, and stays unchanged until then. A write burst is `burstcount`
    such cycles, one beat of `writedata` each, of which the first gives address and count; nothing
    else may come between. Read data come in order, a beat in every cycle with `readdatavalid`, and
    cannot be refused. There is no error and no answer to a write. Source: Avalon Interface
    Specifications, pipelined read with bursts.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "address": Out(ADDRESS_BITS),
                "read": Out(1),
                "write": Out(1),
                "burstcount": Out(8),
                "writedata": Out(BEAT_BITS),
                "byteenable": Out(BEAT_BYTES),
                "waitrequest": In(1),
                "readdata": In(BEAT_BITS),
                "readdatavalid": In(1),
            }
        )
