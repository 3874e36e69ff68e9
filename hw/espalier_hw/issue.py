"""One instruction: decode, wait, execute or hand to a unit."""

from amaranth.hdl import *
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped

from espalier.spec import isa
from espalier.spec.isa import Opcode, Store
from espalier.spec.memory import Memory

from .bound import Bound
from .interfaces import (
    EXPAND_FIELDS,
    LOAD_COMMAND,
    PRODUCT_COMMAND,
    STORE_COMMAND,
    VECTOR_COMMAND,
    WEIGHTS_COMMAND,
    struct,
)
from .loop_stack import PC_BITS, LoopStack
from .register_file import RegisterFile, RegisterPort
from .scoreboard import FLAGS, WAITS, Scoreboard

LAYOUTS = {opcode: struct(layout) for opcode, layout in isa.LAYOUTS.items()}
assert all(
    LAYOUTS[Opcode.LOAD][load].offset == LAYOUTS[Opcode.EXPAND][expand].offset
    for load, expand in (("memory", "kind"), ("address", "address"), ("offset", "offset"))
), "an EXPAND's command is taken from where a LOAD's is"
OPCODE_BITS = isa.LAYOUTS[Opcode.HALT].fields[0].width
REGISTER_READ = {
    Opcode.SET: "source",
    Opcode.LOOP: "register",
    Opcode.LOAD: "register",
    Opcode.VECTOR: "register",
    Opcode.EXPAND: "tokens",
}
SIZES = {
    Opcode.LOAD: ("count",),
    Opcode.PRODUCT: ("groups",),
    Opcode.VECTOR: ("count",),
    Opcode.EXPAND: ("most", "heads", "groups", "slots"),
}
"""Fields that must not be 0: a unit asked for nothing would not finish."""


class Commands(Signature):
    """The streams to the units and their answers."""

    def __init__(self) -> None:
        super().__init__(
            {
                "load": Out(stream.Signature(LOAD_COMMAND)),
                "weights": Out(stream.Signature(WEIGHTS_COMMAND)),
                "engine": Out(stream.Signature(PRODUCT_COMMAND)),
                "vector": Out(stream.Signature(VECTOR_COMMAND)),
                "store": Out(stream.Signature(STORE_COMMAND)),
                "completed": In(FLAGS),
            }
        )


class Issue(Component):
    """Executes the instruction in `word`.

    `decode` is 1 for one cycle (register read, jump target, legality), then `execute` until
    `done`, at best in its first cycle. A VECTOR with a store is done when both units have it.
    Waits are looked at until the first of them has it: from then on they hold by themselves.

    Members
    -------
    begin: a run begins: no loop is open. following: address of the next instruction. host: R0..R15.
    preload, length: instead of executing, ask for `length` instructions from window offset 0;
    `done` as well.
    done, jump, target: executed; the next instruction is at `target` when `jump` is 1. branch: it
    will be at `target` (while `execute` is 1).
    illegal: it cannot be executed. halted: it is HALT, done. reload: it loads instructions, done.
    load_idle: no LOAD is outstanding.
    """

    commands: Out(Commands())
    host: In(RegisterPort())
    word: In(isa.INSTRUCTION_BITS)
    following: In(PC_BITS)
    begin: In(1)
    decode: In(1)
    execute: In(1)
    preload: In(1)
    length: In(16)
    done: Out(1)
    branch: Out(1)
    jump: Out(1)
    target: Out(PC_BITS)
    illegal: Out(1)
    halted: Out(1)
    reload: Out(1)
    load_idle: Out(1)

    def __init__(self, vector_lanes: int):
        self._vector_lanes = vector_lanes
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.loops = loops = LoopStack()
        m.submodules.scoreboard = board = Scoreboard()
        m.submodules.registers = registers = RegisterFile()
        connect(m, flipped(self.host), registers.host)
        words = {op: layout(self.word[: layout.size]) for op, layout in LAYOUTS.items()}
        wrong = Signal()
        go = Signal()
        sent = Signal(2)
        m.d.comb += [
            loops.clear.eq(self.begin),
            board.completed.eq(self.commands.completed),
            board.waits.eq(self.word[OPCODE_BITS : OPCODE_BITS + WAITS.size]),
            board.waitless.eq(words[Opcode.HALT].opcode == Opcode.VECTOR),
            self.load_idle.eq(board.idle.load),
            go.eq(self.execute & ~wrong & (board.met | sent.any())),
            self.jump.eq(go & self.branch),
        ]
        self._decode(m, words, loops, registers.sequencer, wrong)
        self._payloads(m, words, registers.sequencer.data)
        self._bound(m, words[Opcode.VECTOR], registers.sequencer.data)
        with m.If(self.preload):
            # the word at hand is left over from an earlier run
            self._preload(m, board)
        with m.Else():
            self._execute(m, go, words, loops, registers.sequencer, board, sent)
        with m.If(self.execute & wrong):
            m.d.comb += self.illegal.eq(1)
        return m

    def _execute(self, m, go, words, loops, registers, board, sent):
        """What the opcode says, while `go`."""
        with m.Switch(words[Opcode.HALT].opcode):
            with m.Case(Opcode.HALT):
                m.d.comb += self.halted.eq(go & board.idle.as_value().all())
                m.d.comb += self.done.eq(self.halted)
            with m.Case(Opcode.SET):
                self._set(m, go, words[Opcode.SET], registers)
            with m.Case(Opcode.LOOP):
                self._loop(m, go, words[Opcode.LOOP], loops, registers.data)
            with m.Case(Opcode.END):
                m.d.comb += [loops.end.eq(go), self.done.eq(go), self.branch.eq(loops.again)]
            with m.Case(Opcode.LOAD):
                self._load(m, go, words[Opcode.LOAD], registers, board)
            with m.Case(Opcode.EXPAND):
                self._expand(m, go, words[Opcode.EXPAND], registers, board)
            with m.Case(Opcode.PRODUCT):
                engine = self.commands.engine
                m.d.comb += [engine.valid.eq(go), self.done.eq(go & engine.ready)]
                m.d.comb += board.issued.engine.eq(self.done)
            with m.Case(Opcode.VECTOR):
                self._vector(m, go, words[Opcode.VECTOR], sent, board)

    def _decode(self, m, words, loops, registers, wrong):
        """Register read and jump target; `wrong` for what the instruction alone tells."""
        loop = words[Opcode.LOOP]
        unfit = Signal()
        m.d.comb += unfit.eq(1)
        with m.Switch(loop.opcode):
            for opcode in Opcode:
                with m.Case(opcode):
                    if opcode in REGISTER_READ:
                        m.d.comb += registers.read.eq(words[opcode][REGISTER_READ[opcode]])
                    if opcode in SIZES:
                        m.d.comb += unfit.eq(
                            Cat(words[opcode][name] == 0 for name in SIZES[opcode]).any()
                        )
                    else:
                        m.d.comb += unfit.eq(loops.empty if opcode is Opcode.END else 0)
        with m.If(self.execute & (loop.opcode == Opcode.EXPAND)):
            m.d.comb += registers.read.eq(words[Opcode.EXPAND].register)
        with m.If(self.decode):
            m.d.sync += wrong.eq(unfit)
            with m.If(loop.opcode == Opcode.LOOP):
                m.d.sync += self.target.eq(loop.end + 1)
            with m.Else():
                m.d.sync += self.target.eq(loops.start)

    def _payloads(self, m, words, value):
        load, vector = words[Opcode.LOAD], words[Opcode.VECTOR]
        expand = words[Opcode.EXPAND]
        to_load, to_store = self.commands.load.payload, self.commands.store.payload
        to_weights = self.commands.weights.payload
        ddr = Signal.like(to_load.ddr)
        m.d.comb += [
            ddr.eq(value + load.offset),
            to_load.memory.eq(load.memory),
            to_weights.kind.eq(load.memory),
            to_weights.expand.eq(expand.opcode == Opcode.EXPAND),
            *(to_weights[name].eq(expand[name]) for name in EXPAND_FIELDS),
            to_store.ddr.eq(value),
            to_store.chunks.eq(vector.count),
            to_store.kind.eq(vector.store),
        ]
        for payload in (to_load, to_weights):
            m.d.comb += [
                payload.address.eq(load.address),
                payload.count.eq(load.count),
                payload.ddr.eq(ddr),
            ]
        for stream_, word in (
            (self.commands.engine, words[Opcode.PRODUCT]),
            (self.commands.vector, vector),
        ):
            for name in stream_.payload.shape().members:
                if name in word.shape().members:
                    m.d.comb += stream_.payload[name].eq(word[name])

    def _bound(self, m, word, value):
        """A bounded VECTOR's count is known a cycle after its register's value."""
        m.submodules.bound = bound = Bound(self._vector_lanes)
        payload = self.commands.vector.payload
        m.d.comb += [
            bound.bounded.eq(word.bounded),
            bound.count.eq(word.count),
            bound.value.eq(value),
            payload.count.eq(bound.chunks),
            payload.tail.eq(bound.tail),
        ]

    def _set(self, m, go, word, registers):
        m.d.comb += [
            registers.write.eq(go),
            registers.target.eq(word.target),
            registers.value.eq(Mux(word.use_source, registers.data, 0) + word.value),
            self.done.eq(go),
        ]

    def _loop(self, m, go, word, loops, value):
        """A loop of no pass opens nothing; a fifth open loop is illegal. Executed a cycle later
        than others, when its count is known to be 0 or not."""
        count = Mux(word.use_register, value, word.count)
        none, known = Signal(name="loop_none"), Signal(name="loop_known")
        m.d.sync += [none.eq(count == 0), known.eq(self.execute & ~self.done)]
        go = go & known
        m.d.comb += [
            loops.opening.eq(1),
            loops.body.eq(self.following),
            loops.count.eq(count),
            self.branch.eq(none & known),
            loops.push.eq(go & ~none & ~loops.full),
            self.illegal.eq(go & ~none & loops.full),
            self.done.eq(go & ~self.illegal),
        ]

    def _load(self, m, go, word, registers, board):
        """To the unit that writes the memory."""
        load, weights = self.commands.load, self.commands.weights
        is_weights = word.memory == Memory.WEIGHTS
        m.d.comb += [
            load.valid.eq(go & ~is_weights),
            weights.valid.eq(go & is_weights),
            self.done.eq(go & Mux(is_weights, weights.ready, load.ready)),
            board.issued.load.eq(self.done & ~is_weights),
            board.issued.weights.eq(self.done & is_weights),
            self.reload.eq(self.done & (word.memory == Memory.PROGRAM)),
            registers.write.eq(self.done),
            registers.target.eq(word.register),
            registers.value.eq(registers.data + word.increment),
        ]

    def _expand(self, m, go, word, registers, board):
        """The number of tokens is read first, in the cycle of decoding, and the address after it;
        `kind`, `address` and `offset` lie where a LOAD has memory, address and offset."""
        weights = self.commands.weights
        tokens = Signal.like(word.most)
        counted = Signal()
        low, high = registers.data[: len(tokens)], registers.data[len(tokens) :]
        m.d.sync += counted.eq(self.execute & ~self.done)
        with m.If(~counted):
            m.d.sync += tokens.eq(Mux(high.any() | (low > word.most), word.most, low))
            with m.If(registers.data == 0):
                m.d.sync += tokens.eq(1)
        go = go & counted
        m.d.comb += [
            weights.payload.count.eq(tokens),
            weights.valid.eq(go),
            self.done.eq(go & weights.ready),
            board.issued.weights.eq(self.done),
        ]

    def _vector(self, m, go, word, sent, board):
        """`sent` remembers which of the two units has the command already. Executed a cycle later
        than others when it is bounded."""
        vector, store = self.commands.vector, self.commands.store
        counted = Signal(name="vector_counted")
        m.d.sync += counted.eq(self.execute & ~self.done)
        go = go & (counted | ~word.bounded)
        taken = Cat(vector.valid & vector.ready, store.valid & store.ready)
        needed = Cat(1, word.store != Store.NONE)
        m.d.comb += [
            vector.valid.eq(go & ~sent[0]),
            store.valid.eq(go & ~sent[1] & needed[1]),
            board.issued.vector.eq(taken[0]),
            board.issued.store.eq(taken[1]),
            self.done.eq(go & ((sent | taken) == needed)),
        ]
        m.d.sync += sent.eq(Mux(self.done, 0, sent | taken))

    def _preload(self, m, board):
        load = self.commands.load
        m.d.comb += [
            load.valid.eq(1),
            load.payload.memory.eq(Memory.PROGRAM),
            load.payload.address.eq(0),
            load.payload.count.eq(self.length),
            load.payload.ddr.eq(0),
            board.issued.load.eq(load.ready),
            self.done.eq(load.ready),
        ]
