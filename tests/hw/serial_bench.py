"""A serial line in Amaranth's simulator: the host's end of spec.link in bytes or bit by bit, and
the two buses of the board's end."""

from __future__ import annotations

import random
from collections import deque

from amaranth.hdl import Cat
from axi_model import simulate

from espalier.spec import link

BASE = 0x1000
BYTES = 1024


async def cycles(ctx, count):
    for _ in range(count):
        await ctx.tick()


async def when(ctx, condition, *values):
    """Tick until `condition` was 1 at an edge; `values` at that edge."""
    while True:
        met, *sampled = (await ctx.tick().sample(condition, *values))[-1 - len(values) :]
        if met:
            return sampled


class ByteLine:
    """The byte ports of a `LinkCore`: `sent` goes in with `gaps` cycles between the bytes, and
    `received` comes out, with random pauses."""

    def __init__(self, dut, rng: random.Random, gaps=(2, 2, 3, 12)):
        self.dut, self.rng, self.gaps = dut, rng, gaps
        self.sent, self.received = deque(), bytearray()

    async def to_board(self, ctx):
        while True:
            await cycles(ctx, self.rng.choice(self.gaps))
            if self.sent:
                ctx.set(self.dut.byte, self.sent.popleft())
                ctx.set(self.dut.valid, 1)
                await ctx.tick()
                ctx.set(self.dut.valid, 0)

    async def from_board(self, ctx):
        output = self.dut.output
        while True:
            await cycles(ctx, self.rng.choice((0, 0, 0, 9)))
            ctx.set(output.ready, 1)
            self.received.extend(await when(ctx, output.valid, output.payload))
            ctx.set(output.ready, 0)


class WireLine:
    """The wires of a `SerialLink`, bit by bit, with gaps between the bytes to the board."""

    def __init__(self, dut, clocks: int, rng: random.Random):
        self.dut, self.clocks, self.rng = dut, clocks, rng
        self.sent, self.received = deque(), bytearray()

    async def to_board(self, ctx):
        while True:
            if not self.sent or self.rng.random() < 0.1:
                await cycles(ctx, self.rng.randint(1, 3 * self.clocks))
                continue
            byte = self.sent.popleft()
            for bit in (0, *(byte >> i & 1 for i in range(8)), 1):
                ctx.set(self.dut.rx, bit)
                await cycles(ctx, self.clocks)

    async def from_board(self, ctx):
        while True:
            await when(ctx, ~self.dut.tx)
            await cycles(ctx, self.clocks // 2)
            bits = []
            for _ in range(9):
                await cycles(ctx, self.clocks)
                bits.append(ctx.get(self.dut.tx))
            assert bits.pop(), "a stop bit must be 1"
            self.received.append(sum(bit << i for i, bit in enumerate(bits)))


class Host:
    """Requests over a line."""

    def __init__(self, line: ByteLine | WireLine):
        self.line, self.deframer, self.sequence = line, link.Deframer(), 0
        self._replies = deque()

    def send(self, command, address, length=0, payload=b"", *, again=False):
        self.sequence = self.sequence if again else (self.sequence + 1) % 256
        content = link.request(self.sequence, command, address, length, payload)
        self.line.sent.extend(link.framed(content))

    async def reply(self, ctx, patience=12_000):
        """The content of the next frame from the board, or None when so many cycles pass
        without, after all has been sent."""
        waited = 0
        while waited < patience:
            waited += 0 if self.line.sent else 16
            received = bytes(self.line.received)
            self.line.received.clear()
            self._replies.extend(self.deframer.feed(received))
            if self._replies:
                content = self._replies.popleft()
                assert content is not None, "the board sent a damaged frame"
                return content
            await cycles(ctx, 16)
        return None

    async def ask(self, ctx, command, address, length=0, payload=b"", *, again=False):
        """(status, payload) of a request whose frame arrives whole."""
        self.send(command, address, length, payload, again=again)
        content = await self.reply(ctx)
        assert content is not None, "no reply"
        header, body = content[: link.REPLY_BYTES], content[link.REPLY_BYTES :]
        fields = link.REPLY_HEADER.unpack(int.from_bytes(header, "little"))
        assert fields["sequence"] == self.sequence
        assert fields["command"] == command | link.REPLY
        assert fields["length"] == len(body) - 1
        return link.Status(body[-1]), body[:-1]


class BusModel:
    """A slave of `size` random bytes from bus address `base` on, with random pauses; takes single
    words, address and data in any order.

    `bad` holds addresses that answer with an error, `writes` lists (address, word).
    """

    def __init__(self, bus, rng: random.Random, base: int, size: int, stall=0.4):
        self.bus, self.rng, self.base, self.stall = bus, rng, base, stall
        self.unit = len(bus.wstrb)
        self.data, self.writes, self.bad = bytearray(rng.randbytes(size)), [], set()

    def _part(self, address):
        offset = address - self.base
        assert 0 <= offset <= len(self.data) - self.unit and offset % self.unit == 0, hex(address)
        return slice(offset, offset + self.unit)

    async def _pause(self, ctx):
        while self.rng.random() < self.stall:
            await ctx.tick()

    async def _take(self, ctx, ready, valid, payload):
        await self._pause(ctx)
        ctx.set(ready, 1)
        (value,) = await when(ctx, valid, payload)
        ctx.set(ready, 0)
        return value

    async def read_channel(self, ctx):
        bus = self.bus
        while True:
            address = await self._take(ctx, bus.arready, bus.arvalid, bus.araddr)
            await self._pause(ctx)
            ctx.set(bus.rdata, int.from_bytes(self.data[self._part(address)], "little"))
            ctx.set(bus.rresp, 2 if address in self.bad else 0)
            ctx.set(bus.rvalid, 1)
            await when(ctx, bus.rready)
            ctx.set(bus.rvalid, 0)

    async def write_channel(self, ctx):
        bus = self.bus
        channels = {
            "address": (bus.awready, bus.awvalid, bus.awaddr),
            "word": (bus.wready, bus.wvalid, Cat(bus.wdata, bus.wstrb)),
        }
        while True:
            taken = {}
            for name in self.rng.sample(list(channels), 2):
                taken[name] = await self._take(ctx, *channels[name])
            address, word = taken["address"], taken["word"].to_bytes(2 * self.unit, "little")
            word, strobes = word[: self.unit], int.from_bytes(word[self.unit :], "little")
            assert strobes == (1 << self.unit) - 1, "whole words alone"
            self.writes.append((address, word))
            if address not in self.bad:
                self.data[self._part(address)] = word
            ctx.set(bus.bresp, 2 if address in self.bad else 0)
            ctx.set(bus.bvalid, 1)
            await when(ctx, bus.bready)
            ctx.set(bus.bvalid, 0)


def simulate_link(dut, line, script, rng, most_cycles=100_000):
    """Run `script(ctx, host, registers, memory)` against a link whose memory has BYTES at BASE."""
    registers = BusModel(dut.registers, rng, 0, link.REGISTERS_END)
    memory = BusModel(dut.memory, rng, BASE, BYTES)

    async def bench(ctx):
        bus = dut.memory
        lengths, sizes, kinds = (
            Cat(getattr(bus, f"aw{name}"), getattr(bus, f"ar{name}"))
            for name in ("len", "size", "burst")
        )
        assert [ctx.get(v) for v in (lengths, sizes, kinds, bus.wlast)] == [0, 0o44, 0b0101, 1]
        await script(ctx, Host(line), registers, memory)

    buses = [side for bus in (registers, memory) for side in (bus.read_channel, bus.write_channel)]
    simulate(dut, bench, line.to_board, line.from_board, *buses, cycles=most_cycles)
