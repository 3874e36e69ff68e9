"""The vector unit's front: VECTOR commands become chunks, one a cycle."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec import isa
from espalier.spec.config import Config

from .interfaces import VECTOR_COMMAND
from .vector_reduce import SCALAR_INDEX_BITS, Reducer, pace
from .vector_sum import Select

_CHUNK_ADDRESSES = (
    "drain",
    "operand0",
    "operand1",
    "operand2",
    "vector_address",
)
"""Fields that advance by one with every chunk; `sum_address` and `parameters` do where they are not
a scalar's."""
REDUCTIONS = 2
"""Commands with a reduction whose chunks may be between here and the way into the scalar unit,
which has one more."""


def reduces(command: data.View) -> Value:
    """Whether a command's results become a scalar."""
    return command.sums >= isa.Sums.MAXIMUM


class VectorIssue(wiring.Component):
    """Takes a chunk of the command in hand every cycle, every second one with two planes.

    Commands follow each other without a gap. `command` holds the addresses of the next chunk. A
    chunk that goes to DDR waits for `room`. A chunk to be reduced waits until the `Reducer` is done
    with the one before it, and a command's first one for one of two places there. A command that
    reads a scalar waits until all earlier reductions into its half of the scalars are `released`.
    With two planes the high plane
    is requested in one cycle and the low one, with which the chunk counts as taken, in the next,
    always: the pipeline joins them by their neighbourhood.

    Members
    -------
    commands: VECTORs. The first chunk of one taken in cycle 0 may be taken in cycle 1.
    room: a chunk to be stored may be taken.
    reduction_taken: a reduction has left the place that it had since its first chunk was taken.
    released, released_scalar: a command taken in the next cycle or later reads the scalar of the
        oldest reduction.
    reducing: a reduction is under way, from its last chunk to `released`.
    taken, last: a chunk is taken, and is its command's last.
    select, joins: what the source is in this cycle, and that it is the second of two planes.
    drain_valid, drain_chunk, drain_follows, drain_continues: request to the engine in this cycle.
    column_array, command.column_address: first column group of the chunk.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__(
            {
                "commands": In(stream.Signature(VECTOR_COMMAND)),
                "room": In(1),
                "reduction_taken": In(1),
                "released": In(1),
                "released_scalar": In(SCALAR_INDEX_BITS),
                "reducing": Out(1),
                "taken": Out(1),
                "last": Out(1),
                "select": Out(Select),
                "joins": Out(1),
                "drain_valid": Out(1),
                "drain_chunk": Out(7),
                "drain_follows": Out(2),
                "drain_continues": Out(1),
                "command": Out(VECTOR_COMMAND),
                "column_array": Out(range(max(config.arrays, 2))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command, busy, second, first = self.command, Signal(), Signal(), Signal()
        joins = command.source == isa.Source.DRAIN_PLANES
        drains = (command.source == isa.Source.DRAIN) | joins
        goes, may = Signal(), Signal()
        m.d.comb += [
            may.eq(
                (self.room | (command.store == isa.Store.NONE))
                & (~reduces(command) | self._reducer_free(m, first, joins))
                & ((command.scale != isa.Scale.SCALAR) | self._written(m))
            ),
            goes.eq(busy & (second | may)),
            self.taken.eq(goes & (second | ~joins)),
            self.last.eq(command.count == 1),
            self.joins.eq(second),
            self.drain_valid.eq(goes & drains),
            self.drain_chunk.eq(command.drain + Mux(joins & ~second, command.plane_stride, 0)),
            self.drain_follows.eq(Mux(joins, 0, Mux(command.count > 4, 3, command.count - 1))),
            self.drain_continues.eq(~joins & ~first),
            self.commands.ready.eq(~busy | (self.taken & self.last)),
        ]
        with m.Switch(command.source):
            with m.Case(isa.Source.DRAIN, isa.Source.DRAIN_PLANES):
                m.d.comb += self.select.eq(Select.DRAIN)
            with m.Case(isa.Source.OPERAND):
                m.d.comb += self.select.eq(Select.OPERAND)
        m.d.sync += second.eq(goes & joins & ~second)

        with m.If(self.taken):
            m.d.sync += first.eq(0)
            m.d.sync += command.count.eq(command.count - 1)
            m.d.sync += [command[name].eq(command[name] + 1) for name in _CHUNK_ADDRESSES]
            m.d.sync += [
                command.sum_address.eq(command.sum_address + ~reduces(command)),
                command.parameters.eq(command.parameters + (command.scale != isa.Scale.SCALAR)),
            ]
            self._advance_columns(m)
        with m.If(self.commands.ready):
            m.d.sync += [
                busy.eq(self.commands.valid),
                first.eq(1),
                command.eq(self.commands.payload),
                self.column_array.eq(0),
            ]
            with m.If(self.commands.payload.scale == isa.Scale.SCALAR):
                first_scalar = self._config.first_scalar
                m.d.sync += command.parameters.eq(first_scalar + self.commands.payload.parameters)
        return m

    def _written(self, m: Module) -> Value:
        """Whether nothing is to come into the half of the scalars that the command reads."""
        upper, ends = Signal(name="reads_upper_half"), Signal(name="last_reduced")
        with m.If(self.commands.ready):
            m.d.sync += upper.eq(self.commands.payload.parameters[SCALAR_INDEX_BITS - 1])
        m.d.comb += ends.eq(self.taken & self.last & reduces(self.command))
        to_come = []
        for half in range(2):
            count = Signal(range(REDUCTIONS + 2), name=f"under_way_{half}")
            begins = ends & (self.command.sum_address[SCALAR_INDEX_BITS - 1] == half)
            leaves = self.released & (self.released_scalar[-1] == half)
            m.d.sync += count.eq(count + begins - leaves)
            to_come.append(count != 0)
        m.d.comb += self.reducing.eq(Cat(to_come).any())
        return ~Mux(upper, to_come[1], to_come[0])

    def _reducer_free(self, m: Module, first: Value, joins: Value) -> Value:
        """Whether the next chunk may be one to be reduced; one of two planes is taken a cycle
        later."""
        between, taken = pace(self._config), Signal(name="takes_reduced")
        wait, places = Signal(range(between + Reducer.GAP)), Signal(2, init=REDUCTIONS)
        m.d.comb += taken.eq(self.taken & reduces(self.command))
        with m.If(taken):
            m.d.sync += wait.eq(between - 1 + Mux(self.last, Reducer.GAP, 0))
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        m.d.sync += places.eq(places + self.reduction_taken - (taken & first))
        return ((wait == 0) | (joins & (wait == 1))) & (~first | (places != 0))

    def _advance_columns(self, m: Module) -> None:
        """V/G groups on: at most once around the arrays."""
        arrays, step = self._config.arrays, self._config.chunk_groups
        wraps = self.column_array >= arrays - step
        m.d.sync += self.column_array.eq(self.column_array + Mux(wraps, step - arrays, step))
        m.d.sync += self.command.column_address.eq(self.command.column_address + wraps)
