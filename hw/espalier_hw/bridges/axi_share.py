"""Two AXI4 masters at one slave."""

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out

from ..interfaces import Axi4

MOST_IN_FLIGHT = 15
CHANNELS = {"read": ("ar", "r"), "write": ("aw", "w", "b")}
"""Of each direction; bursts begin on the first channel."""


class AxiShare(Component):
    """Lets `first` and `second` use `slave` in turns, reads and writes apart.

    The slave belongs to one master until the other asks; then, if a burst has begun in this turn,
    no further one does, those in flight end, and the slave changes hands. Whoever has it works
    without delay, all channels are wires. Data to write pass once their burst has begun: the slave
    has to take addresses without waiting for data.
    """

    first: In(Axi4())
    second: In(Axi4())
    slave: Out(Axi4())

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slave = self.slave
        self._direct(m, "read", slave.rvalid & slave.rready & slave.rlast)
        self._direct(m, "write", slave.bvalid & slave.bready)
        return m

    def _direct(self, m: Module, direction: str, ends: Value) -> None:
        """One direction; `ends` is 1 when a burst ends."""
        slave, masters = self.slave, (self.first, self.second)
        address, *_ = CHANNELS[direction]
        valid, ready = f"{address}valid", f"{address}ready"
        owner, offered, passes, served = (
            Signal(name=f"{direction}_{name}") for name in ("owner", "offered", "passes", "served")
        )
        in_flight = Signal(range(MOST_IN_FLIGHT + 1), name=f"{direction}_in_flight")
        asks = [getattr(master, valid) for master in masters]
        own, other = Mux(owner, asks[1], asks[0]), Mux(owner, asks[0], asks[1])
        begins = getattr(slave, valid) & getattr(slave, ready)
        m.d.comb += passes.eq(offered | (~(other & served) & (in_flight != MOST_IN_FLIGHT)))
        m.d.sync += [
            # an address that the slave has seen stays until it is taken
            offered.eq(getattr(slave, valid) & ~getattr(slave, ready)),
            in_flight.eq(in_flight + begins - ends),
            served.eq(served | begins),
        ]
        with m.If(other & (in_flight == 0) & ~offered & (served | ~own)):
            m.d.sync += [owner.eq(~owner), served.eq(0)]
        gates = {address: passes, "w": in_flight != 0}
        for channel in CHANNELS[direction]:
            self._connect(m, channel, owner, gates.get(channel, Const(1)))

    def _connect(self, m: Module, channel: str, owner: Value, gate: Value) -> None:
        for name, member in self.slave.signature.members.items():
            if (name[:2] if name[0] == "a" else name[0]) != channel:
                continue
            outer = getattr(self.slave, name)
            inner = [getattr(master, name) for master in (self.first, self.second)]
            handshake = name.endswith(("valid", "ready"))
            if member.flow is Out:
                chosen = Mux(owner, inner[1], inner[0])
                m.d.comb += outer.eq(chosen & gate if handshake else chosen)
                continue
            for number, signal in enumerate(inner):
                m.d.comb += signal.eq(outer & gate & (owner == number) if handshake else outer)
