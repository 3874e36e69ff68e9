"""The arithmetic on a group of columns: differences against a threshold, and where each column's words lie."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import COLUMN_BITS, SLOTS, Config
from espalier.spec.isa import Mode
from espalier.spec.memory import COUNT_BITS

from .weights import weight_address

DELTA_BITS = COLUMN_BITS + 1
STEPS = ("operands", "delta", "group")
"""Register stages behind the memories; each `move` bit lets one of them take the group of the stage before."""
MOVE = data.StructLayout({step: 1 for step in STEPS})


def columns_layout(config: Config) -> data.ArrayLayout:
    return data.ArrayLayout(signed(COLUMN_BITS), config.group)


def descriptor_layout(config: Config) -> data.StructLayout:
    """`spec.memory.descriptor`, its counts as an array."""
    return data.StructLayout({"base": 16, "counts": data.ArrayLayout(COUNT_BITS, config.group)})


def offset_shape(config: Config) -> Shape:
    return Shape.cast(range((config.group - 1) * SLOTS + 1))


def beyond(delta: Value, threshold: Value) -> Value:
    """|delta| > threshold, as one adder's carry; delta has 9 bits signed, threshold 8 unsigned."""
    sign = delta[-1]
    magnitude = delta[:COLUMN_BITS] ^ sign.replicate(COLUMN_BITS)
    return (Cat(sign, magnitude) + Cat(1, ~threshold))[-1]


def needs_two(delta: Value) -> Value:
    """|delta| > 127."""
    sign = delta[-1]
    magnitude = delta[:COLUMN_BITS] ^ sign.replicate(COLUMN_BITS)
    return magnitude[-1] | (sign & magnitude[:-1].all())


class Deltas(wiring.Component):
    """delta = x - s of a group's columns, sent = |delta| > threshold, wide = sent and |delta| >
    127.

    s counts as 0 in PLAIN; x and s count as 0 in CLEAR, so that nothing is sent and 0 is kept.
    `kept` is the new last-sent value: x where sent, else s. Outputs are registers of the `group`
    stage. `mode` belongs to the operands, `threshold` to the delta stage's group.
    """

    def __init__(self, config: Config):
        self._group = config.group
        columns = columns_layout(config)
        super().__init__({
            "move": In(MOVE), "mode": In(2), "threshold": In(8), "x": In(columns), "s": In(columns),
            "delta": Out(data.ArrayLayout(signed(DELTA_BITS), config.group)),
            "sent": Out(config.group),
            "wide": Out(config.group),
            "kept": Out(columns),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = self.x.shape()
        x, s, x_held, s_held = (
            Signal(shape, name=name, reset_less=True) for name in ("x_now", "s_now", "x_held", "s_held")
        )
        delta = Signal.like(self.delta, name="delta_now", reset_less=True)
        clear = self.mode == Mode.CLEAR
        with m.If(self.move.operands):
            # as a register's synchronous clear this costs no logic
            m.d.sync += [x.eq(Mux(clear, 0, self.x)), s.eq(Mux(clear | (self.mode == Mode.PLAIN), 0, self.s))]
        with m.If(self.move.delta):
            m.d.sync += [x_held.eq(x), s_held.eq(s)]
        for i in range(self._group):
            sent = beyond(delta[i], self.threshold)
            with m.If(self.move.delta):
                m.d.sync += delta[i].eq(x[i] - s[i])
            with m.If(self.move.group):
                m.d.sync += [
                    self.delta[i].eq(delta[i]),
                    self.sent[i].eq(sent),
                    self.wide[i].eq(sent & needs_two(delta[i])),
                    self.kept[i].eq(Mux(sent, x_held[i], s_held[i])),
                ]
        return m


class Offsets(wiring.Component):
    """Column i's words begin at base + offsets[i], offsets[i] = counts[0] + ... + counts[i - 1];
    `present[i]` = counts[i] > 0.

    Half of the sums are made in the `delta` stage, the others in `group`; outputs are registers of
    `group`.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "move": In(MOVE),
            "words": In(descriptor_layout(config)),
            "base": Out(weight_address(config)),
            "counts": Out(data.ArrayLayout(COUNT_BITS, config.group)),
            "offsets": Out(data.ArrayLayout(offset_shape(config), config.group)),
            "present": Out(config.group),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        half = self._config.group // 2
        words, held = (Signal.like(self.words, name=n, reset_less=True) for n in ("words_now", "words_held"))
        early = Signal(data.ArrayLayout(offset_shape(self._config), half + 1), reset_less=True)

        def sums(first: Value, counts: list[Value]) -> list[Value]:
            result = [first]
            for count in counts:
                result.append((result[-1] + count)[:offset_shape(self._config).width])
            return result

        with m.If(self.move.operands):
            m.d.sync += words.eq(self.words)
        with m.If(self.move.delta):
            m.d.sync += [
                held.eq(words),
                *(e.eq(o) for e, o in zip(early, sums(Const(0), list(words.counts)[:half]), strict=True)),
            ]
        late = sums(early[half], list(held.counts)[half:-1])
        with m.If(self.move.group):
            m.d.sync += [
                self.base.eq(held.base),
                self.counts.eq(held.counts),
                self.present.eq(Cat(count.any() for count in held.counts)),
                *(o.eq(v) for o, v in zip(self.offsets, [*list(early)[:half], *late], strict=True)),
            ]
        return m
