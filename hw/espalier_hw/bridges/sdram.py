"""The accelerator's AXI4 master to an FPGA-to-SDRAM port."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import BEAT_BYTES

from ..buffer import Buffer
from ..datapath import data_output
from ..interfaces import ADDRESS_BITS, BEAT_BITS, Axi4
from ..queues import Queue
from .interfaces import SdramPort

BURST_BITS = 5
"""Bits of a burst's beat count, 1 .. 16."""
WRITES = 8
"""Write bursts begun and not yet answered, at most."""
READS = 16
"""Read bursts begun and not yet delivered, at most."""
COMMAND = data.StructLayout(
    {
        "write": 1,
        "last": 1,
        "address": ADDRESS_BITS,
        "beats": BURST_BITS,
        "data": BEAT_BITS,
        "strobes": BEAT_BYTES,
    }
)
"""What the port takes in one cycle: a read command, or a beat of a write burst (`last` of it)."""


class SdramBridge(Component):
    """AXI4 bursts to Avalon bursts of the same beats, in both directions at once.

    Two cycles from an address to its command on the port, 1 from read data on the port to the bus;
    one beat a cycle each way, and one cycle of the port for a read command or a written beat. Read
    commands and write bursts take turns; a write burst has the port from its first beat on and
    asks for the port once its first beat is there, so a master that hesitates inside a burst keeps
    its own reads waiting, and nobody else. Reads and writes are each answered in order. Read data
    of the port cannot be refused and nothing holds them here: RREADY must be 1 when they come, so
    the master asks only for what it has room for, as the loader does. A write burst is answered
    when the port has taken its last beat; reads of the same port that come later see it, the
    controller's other ports some tens of nanoseconds later (est.): before the processor has come
    from an interrupt to its first read. The port knows no errors: every answer is OKAY.

    `hold` keeps further bursts out: none is begun while it is 1. Those begun are finished, which
    the master has to allow (data of a begun write burst must come, read data must be taken);
    `drained` then says that the port owes nothing and is owed nothing. Whoever resets or
    reconfigures this side waits for it: a burst cut short hangs the port.
    """

    def __init__(self) -> None:
        super().__init__(
            {"axi": In(Axi4()), "port": Out(SdramPort()), "hold": In(1), "drained": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.commands = commands = Buffer(COMMAND)
        m.submodules.bursts = bursts = Queue(4, READS)
        self._port(m, commands.output)
        free, no_writes = self._answers(m, commands.output)
        m.d.comb += self.drained.eq(~bursts.output.valid & no_writes)
        self._commands(m, commands.input, bursts.input, ~self.hold, free & ~self.hold)
        self._read_data(m, bursts.output)
        return m

    def _commands(self, m, commands, bursts, may_read, may_write):
        """Which of the two has the port: inside a write burst the write, else they take turns."""
        axi, command = self.axi, commands.payload
        begun, inside, reads_turn = Signal(), Signal(), Signal()
        address = Signal(ADDRESS_BITS)
        beats, left = Signal(BURST_BITS), Signal(BURST_BITS)
        read, write = Signal(), Signal()
        read_wish = axi.arvalid & may_read & bursts.ready & ~inside
        write_wish = axi.wvalid & begun
        m.d.comb += [
            read.eq(read_wish & (reads_turn | ~write_wish)),
            write.eq(write_wish & ~read),
            commands.valid.eq(read | write),
            command.write.eq(write),
            command.last.eq(left == 1),
            command.address.eq(Mux(write, address, axi.araddr)),
            command.beats.eq(Mux(write, beats, axi.arlen[:4] + 1)),
            command.data.eq(axi.wdata),
            command.strobes.eq(axi.wstrb),
            axi.arready.eq(read & commands.ready),
            axi.wready.eq(write & commands.ready),
            bursts.valid.eq(axi.arready),
            bursts.payload.eq(axi.arlen),
            axi.awready.eq(may_write & ~begun),
        ]
        with m.If(commands.ready & commands.valid):
            m.d.sync += reads_turn.eq(write)
            with m.If(write):
                m.d.sync += [inside.eq(~command.last), left.eq(left - 1)]
                with m.If(command.last):
                    m.d.sync += begun.eq(0)
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [
                begun.eq(1),
                address.eq(axi.awaddr),
                beats.eq(axi.awlen[:4] + 1),
                left.eq(axi.awlen[:4] + 1),
            ]

    def _answers(self, m, taken):
        """(another write burst may begin; the port has all that were begun)."""
        axi = self.axi
        begun, due = Signal(range(WRITES + 1)), Signal(range(WRITES + 1))
        done = taken.valid & taken.ready & taken.payload.write & taken.payload.last
        answered = axi.bvalid & axi.bready
        m.d.comb += axi.bvalid.eq(due != 0)
        m.d.sync += [
            begun.eq(begun + (axi.awvalid & axi.awready) - answered),
            due.eq(due + done - answered),
        ]
        return begun != WRITES, begun == due

    def _port(self, m, commands):
        port, command = self.port, commands.payload
        m.d.comb += [
            port.read.eq(commands.valid & ~command.write),
            port.write.eq(commands.valid & command.write),
            port.address.eq(command.address),
            port.burstcount.eq(command.beats),
            port.writedata.eq(command.data),
            port.byteenable.eq(Mux(command.write, command.strobes, (1 << BEAT_BYTES) - 1)),
            commands.ready.eq(~port.waitrequest),
        ]

    def _read_data(self, m, bursts):
        """Read data, a cycle later, with RLAST counted out of the bursts' lengths."""
        axi, port = self.axi, self.port
        beat = Signal(4)
        m.d.sync += [
            axi.rvalid.eq(port.readdatavalid),
            data_output(m, axi.rdata, "read_data").eq(port.readdata),
        ]
        m.d.comb += [
            axi.rlast.eq(beat == bursts.payload),
            bursts.ready.eq(axi.rvalid & axi.rlast),
        ]
        with m.If(axi.rvalid):
            m.d.sync += beat.eq(Mux(axi.rlast, 0, beat + 1))
