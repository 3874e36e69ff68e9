"""R0..R15: written by the host before a run, by SET and LOAD during it."""

from amaranth.hdl import *
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, Signature

from espalier.spec.isa import REGISTERS

INDEX_BITS = (REGISTERS - 1).bit_length()


class RegisterPort(Signature):
    """One access to the registers a cycle: `data` is what `read` held a cycle ago; `write` puts
    `value` into `target`.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "read": Out(INDEX_BITS),
                "data": In(32),
                "write": Out(1),
                "target": Out(INDEX_BITS),
                "value": Out(32),
            }
        )


class RegisterFile(Component):
    """Sixteen 32-bit registers with two ports; when both write, the host's write is the one done
    (it writes while the sequencer rests).
    """

    host: In(RegisterPort())
    sequencer: In(RegisterPort())

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=32, depth=REGISTERS, init=[])
        write = memory.write_port()
        for port in (self.host, self.sequencer):
            read = memory.read_port()
            m.d.comb += [read.addr.eq(port.read), port.data.eq(read.data)]
        m.d.comb += [
            write.en.eq(self.host.write | self.sequencer.write),
            write.addr.eq(Mux(self.host.write, self.host.target, self.sequencer.target)),
            write.data.eq(Mux(self.host.write, self.host.value, self.sequencer.value)),
        ]
        return m
