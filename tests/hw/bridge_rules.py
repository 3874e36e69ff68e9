"""What the bridges must keep, as statements around them, for bounded proofs.

The environment is built, not assumed: it may do all that its bus allows, chosen by the free input
`free`, but hesitates for one cycle at most where the bridge waits for it. Payloads are numbered:
beat n carries n, so that one equality says that nothing is lost, doubled or out of order.
"""

from amaranth.asserts import AnyConst
from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from espalier_hw.bridges.lightweight import FIXED, PAGE_BITS, WRAPPING

COUNT_BITS = 4


class Rules(Component):
    """Verbs that all statements are written with.

    Members
    -------
    free: what the environment chooses in each cycle. reached: something worth it has happened.
    """

    def __init__(self, bridge, choices):
        self.bridge, self._left = bridge, choices
        super().__init__({"free": In(choices), "reached": Out(1)})

    def choice(self):
        """One bit of the environment's will."""
        self._left -= 1
        return self.free[self._left]

    def offer(self, m, valid, ready, due, *, soon=True):
        """Offers what is `due`: at once or (`soon`) a cycle later, until it is taken."""
        insist = Signal()
        m.d.comb += valid.eq(due & (self.choice() | insist))
        m.d.sync += insist.eq((due if soon else valid) & ~(valid & ready))

    def accept(self, m, valid, ready):
        """Takes what is offered, or refuses it for one cycle."""
        refused = Signal()
        m.d.comb += ready.eq(self.choice() | refused)
        m.d.sync += refused.eq(valid & ~ready)

    def steady(self, m, valid, ready, *payload):
        """An offer of the bridge stays as it is until it is taken."""
        before, values = Signal(), Signal(len(Cat(*payload)))
        m.d.sync += [before.eq(valid & ~ready), values.eq(Cat(*payload))]
        with m.If(before):
            m.d.comb += Assert(valid & (Cat(*payload) == values))

    def within(self, m, waiting, bound):
        """The bridge lets `waiting` last at most `bound` cycles in a row."""
        waited = Signal(range(bound + 2))
        m.d.sync += waited.eq(Mux(waiting, waited + 1, 0))
        m.d.comb += Assert(waited <= bound)

    def count(self, m, event, bits=COUNT_BITS):
        """How often `event` has happened before this cycle."""
        number = Signal(bits)
        m.d.sync += number.eq(number + event)
        return number


ADDRESS_BITS = 7
"""Address bits that are free, besides the highest: the block of the longest burst and one more."""
AXI3_BURST = data.StructLayout({"id": 12, "addr": 21, "len": 4, "size": 3, "burst": 2})


class LightweightRules(Rules):
    """An AXI3 master and a register block around a LightweightBridge: two bursts each way, of any
    kind and at most `beats` beats, then the same two again."""

    def __init__(self, bridge, side, beats=3):
        self._side, self._beats = side, beats
        super().__init__(bridge, 6)

    def elaborate(self, platform):
        m = Module()
        m.submodules.bridge = self.bridge
        m.d.comb += self.reached.eq(self._writes(m) if self._side == "write" else self._reads(m))
        return m

    def _bursts(self, m, channel):
        """Drives an address channel; (in a burst's handshake, the burst now under way)."""
        bus = self.bridge.bus
        valid, ready = getattr(bus, channel + "valid"), getattr(bus, channel + "ready")
        bursts, number, current = (
            Array(Signal(AXI3_BURST) for _ in range(2)),
            Signal(),
            Signal(AXI3_BURST),
        )
        for burst in bursts:
            chosen = AnyConst(AXI3_BURST.size)
            legal = Signal(AXI3_BURST)
            m.d.comb += legal.eq(chosen)
            wrapping = legal.burst == WRAPPING
            step = 1 << legal.size[:2]
            m.d.comb += [
                burst.eq(chosen),
                burst.addr[ADDRESS_BITS:-1].eq(0),
                burst.size.eq(Mux(legal.size > 2, 2, legal.size)),
                burst.burst.eq(Mux(legal.burst == 3, FIXED, legal.burst)),
                burst.len.eq(Mux(legal.len >= self._beats, 0, legal.len)),
            ]
            with m.If(wrapping):
                m.d.comb += [
                    burst.len.eq(1),
                    burst.addr[:2].eq(legal.addr[:2] & ~(Mux(legal.size > 2, 4, step) - 1)),
                ]
        offered = bursts[number]
        for name in AXI3_BURST.members:
            m.d.comb += getattr(bus, channel + name).eq(offered[name])
        self.offer(m, valid, ready, 1, soon=False)
        with m.If(valid & ready):
            m.d.sync += [current.eq(offered), number.eq(~number)]
        return valid & ready, current

    def _expected(self, burst, beat):
        """The word of the page that beat n of a burst belongs to, by AXI's text."""
        step, block = 1 << burst.size[:2], (burst.len + 1) << burst.size[:2]
        later = (burst.addr & ~(step - 1)) + (beat << burst.size[:2])
        wrapped = (burst.addr & ~(block - 1)) | (later & (block - 1))
        first = (burst.burst == FIXED) | (beat == 0)
        address = Mux(first, burst.addr, Mux(burst.burst == WRAPPING, wrapped, later))[:21]
        return Mux(address[PAGE_BITS:].any(), (1 << PAGE_BITS) - 4, address[:PAGE_BITS]) >> 2

    def _writes(self, m):
        bus, registers = self.bridge.bus, self.bridge.registers
        begin, burst = self._bursts(m, "aw")
        take, end = bus.wvalid & bus.wready, bus.bvalid & bus.bready
        asked, given = registers.awvalid & registers.awready, registers.wvalid & registers.wready
        answer = registers.bvalid & registers.bready
        taken, addressed, sent = (self.count(m, event) for event in (take, asked, given))
        replies, ends = self.count(m, answer), self.count(m, end)
        open_, beat, answered, worst = Signal(), Signal(5), Signal(5), Signal(2)
        with m.If(take):
            m.d.sync += beat.eq(beat + 1)
        with m.If(answer):
            m.d.sync += [answered.eq(answered + 1), worst.eq(worst | registers.bresp)]
        with m.If(end):
            m.d.sync += open_.eq(0)
        with m.If(begin):
            m.d.sync += [open_.eq(1), beat.eq(0), answered.eq(0), worst.eq(0)]
            m.d.comb += Assert(~open_)
        m.d.comb += [
            bus.wdata.eq(taken),
            bus.wstrb.eq(taken),
            bus.wlast.eq(beat == burst.len),
            registers.bresp.eq(replies[:1] << 1),
        ]
        self.offer(m, bus.wvalid, bus.wready, open_ & (beat <= burst.len))
        self.accept(m, bus.bvalid, bus.bready)
        # address and data of a register access are taken in any order
        self.accept(m, registers.awvalid, registers.awready)
        self.accept(m, registers.wvalid, registers.wready)
        self.offer(
            m, registers.bvalid, registers.bready, (replies != addressed) & (replies != sent)
        )
        with m.If(registers.awvalid):
            m.d.comb += Assert(addressed < taken)
            m.d.comb += Assert(registers.awaddr == self._expected(burst, answered) << 2)
        with m.If(registers.wvalid):
            m.d.comb += Assert(sent < taken)
            m.d.comb += Assert((registers.wdata == sent) & (registers.wstrb == sent[:4]))
        with m.If(bus.bvalid):
            m.d.comb += Assert(open_ & (bus.bid == burst.id) & (bus.bresp == worst))
            m.d.comb += Assert(answered == burst.len + 1)
        self.steady(m, bus.bvalid, bus.bready, bus.bid, bus.bresp)
        self.steady(m, registers.awvalid, registers.awready, registers.awaddr)
        self.steady(m, registers.wvalid, registers.wready, registers.wdata, registers.wstrb)
        moves = begin | take | end | answer | asked | given
        self.within(m, (open_ | bus.awvalid) & ~moves, 1)
        return (ends == 2) & (taken >= 3)

    def _reads(self, m):
        bus, registers = self.bridge.bus, self.bridge.registers
        begin, burst = self._bursts(m, "ar")
        deliver = bus.rvalid & bus.rready
        asked, answer = registers.arvalid & registers.arready, registers.rvalid & registers.rready
        asks, replies, delivered = (self.count(m, event) for event in (asked, answer, deliver))
        open_, beat = Signal(), Signal(5)
        with m.If(deliver):
            m.d.sync += [beat.eq(beat + 1), open_.eq(~bus.rlast)]
        with m.If(begin):
            m.d.sync += [open_.eq(1), beat.eq(0)]
            m.d.comb += Assert(~open_)
        m.d.comb += [registers.rdata.eq(replies), registers.rresp.eq(replies[1:])]
        self.accept(m, bus.rvalid, bus.rready)
        self.accept(m, registers.arvalid, registers.arready)
        self.offer(m, registers.rvalid, registers.rready, replies != asks)
        with m.If(registers.arvalid):
            m.d.comb += Assert(registers.araddr == self._expected(burst, beat) << 2)
        with m.If(bus.rvalid):
            m.d.comb += Assert(open_ & (bus.rid == burst.id) & (bus.rlast == (beat == burst.len)))
            m.d.comb += Assert(delivered < replies)
            m.d.comb += Assert((bus.rdata == delivered) & (bus.rresp == delivered[1:3]))
        self.steady(m, bus.rvalid, bus.rready, bus.rid, bus.rdata, bus.rresp, bus.rlast)
        self.steady(m, registers.arvalid, registers.arready, registers.araddr)
        self.within(m, (open_ | bus.arvalid) & ~(begin | deliver | asked | answer), 1)
        return (delivered >= 4) & ~open_


class SdramRules(Rules):
    """The accelerator, which takes read data as they come, and an SDRAM port around an SdramBridge,
    and `hold` at any time. Bursts (of `sides`: write, read) have `lengths` beats, one after the
    other and again; reads in reverse.

    A burst's address is its number, so that commands must come in order too.
    """

    def __init__(self, bridge, sides, lengths=(2, 1, 1, 3)):
        self._sides, self._lengths = sides, lengths
        super().__init__(bridge, 8)

    def elaborate(self, platform):
        m = Module()
        m.submodules.bridge = self.bridge
        m.d.comb += self.bridge.hold.eq(self.choice())
        written, writing = self._writes(m)
        delivered, reading = self._reads(m)
        self._port(m)
        self._drain(m, writing, reading)
        done = {"write": written == 2, "read": delivered >= 3}
        m.d.comb += self.reached.eq(
            Cat(done[side] for side in self._sides).all() & self.bridge.drained
        )
        return m

    def _bursts(self, m, channel, lengths, high):
        """Drives an address channel with numbered bursts; number of those begun."""
        axi = self.bridge.axi
        valid, ready = getattr(axi, channel + "valid"), getattr(axi, channel + "ready")
        number = self.count(m, valid & ready)
        m.d.comb += [
            getattr(axi, channel + "addr").eq(Cat(Const(0, 4), number, Const(high, 1))),
            getattr(axi, channel + "len").eq(lengths[number[:2]]),
        ]
        used = int({"ar": "read", "aw": "write"}[channel] in self._sides)
        self.offer(m, valid, ready, used, soon=False)
        with m.If(self.bridge.hold):
            m.d.comb += Assert(~ready)
        return number

    def _command(self, m, number, lengths, high):
        """What the port is told must be burst `number`."""
        port = self.bridge.port
        m.d.comb += Assert(port.address == Cat(Const(0, 4), number, Const(high, 1)))
        m.d.comb += Assert(port.burstcount == lengths[number[:2]] + 1)

    def _writes(self, m):
        axi, port, lengths = self.bridge.axi, self.bridge.port, Array(n - 1 for n in self._lengths)
        begun = self._bursts(m, "aw", lengths, 1)
        take, end = axi.wvalid & axi.wready, axi.bvalid & axi.bready
        given = port.write & ~port.waitrequest
        taken, sent, answered = (self.count(m, event) for event in (take, given, end))
        filled, burst = Signal(COUNT_BITS), Signal(COUNT_BITS)
        beat, port_beat = Signal(5), Signal(5)
        length, port_length = lengths[filled[:2]], lengths[burst[:2]]
        with m.If(take):
            m.d.sync += beat.eq(Mux(axi.wlast, 0, beat + 1))
            m.d.sync += filled.eq(filled + axi.wlast)
        with m.If(given):
            last = port_beat == port_length
            m.d.sync += port_beat.eq(Mux(last, 0, port_beat + 1))
            m.d.sync += burst.eq(burst + last)
        m.d.comb += [axi.wdata.eq(taken), axi.wstrb.eq(~taken), axi.wlast.eq(beat == length)]
        self.offer(m, axi.wvalid, axi.wready, filled != begun)
        self.accept(m, axi.bvalid, axi.bready)
        with m.If(port.write):
            m.d.comb += Assert((sent < taken) & (port.writedata == sent))
            m.d.comb += Assert(port.byteenable == (~sent & 0xFFFF))
            with m.If(port_beat == 0):
                self._command(m, burst, lengths, 1)
        with m.If(port_beat != 0):
            m.d.comb += Assert(~port.read)
        with m.If(axi.bvalid):
            m.d.comb += Assert((answered < burst) & (axi.bresp == 0))
        busy = take | end | given | (axi.awvalid & axi.awready)
        return answered, {"open": answered != begun, "port": burst != begun, "moves": busy}

    def _reads(self, m):
        axi, port = self.bridge.axi, self.bridge.port
        lengths = Array(n - 1 for n in reversed(self._lengths))
        begun = self._bursts(m, "ar", lengths, 0)
        commanded, deliver = port.read & ~port.waitrequest, axi.rvalid & axi.rready
        commands, delivered = self.count(m, commanded), self.count(m, deliver)
        returned = self.count(m, port.readdatavalid)
        owed, beat, burst = Signal(COUNT_BITS), Signal(5), Signal(COUNT_BITS)
        length = lengths[burst[:2]]
        m.d.sync += owed.eq(
            owed + Mux(commanded, port.burstcount, 0)[:COUNT_BITS] - port.readdatavalid
        )
        m.d.comb += port.readdata.eq(returned)
        self.offer(m, port.readdatavalid, 1, owed != 0)
        m.d.comb += axi.rready.eq(1)
        with m.If(port.read):
            m.d.comb += Assert((commands < begun) & ~port.write)
            self._command(m, commands, lengths, 0)
        with m.If(axi.rvalid):
            m.d.comb += Assert((delivered < returned) & (axi.rdata == delivered))
            m.d.comb += Assert((axi.rlast == (beat == length)) & (axi.rresp == 0))
        self.steady(m, axi.rvalid, axi.rready, axi.rdata, axi.rlast)
        with m.If(deliver):
            m.d.sync += [beat.eq(Mux(axi.rlast, 0, beat + 1)), burst.eq(burst + axi.rlast)]
        moves = deliver | commanded | port.readdatavalid | (axi.arvalid & axi.arready)
        return delivered, {"open": burst != begun, "port": burst != begun, "moves": moves}

    def _port(self, m):
        """The port's side of the Avalon rules."""
        port, taken = self.bridge.port, Signal()
        self.accept(m, port.read | port.write, taken)
        m.d.comb += port.waitrequest.eq(~taken)
        self.steady(
            m,
            port.read | port.write,
            taken,
            *(port.read, port.write, port.address, port.burstcount, port.byteenable),
        )

    def _drain(self, m, writing, reading):
        """What is begun ends, and nothing else is ever waited for; `drained` says so exactly."""
        bridge = self.bridge
        wanted = (bridge.axi.arvalid | bridge.axi.awvalid) & ~bridge.hold
        still = ~(writing["moves"] | reading["moves"])
        self.within(m, (writing["open"] | reading["open"] | wanted) & still, 4)
        idle = ~writing["port"] & ~reading["port"]
        m.d.comb += Assert(bridge.drained == idle)
        with m.If(idle):
            m.d.comb += Assert(~bridge.port.read & ~bridge.port.write)
