"""The arithmetic on a group of columns: differences, thresholds, and where the words lie."""

from __future__ import annotations

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import COLUMN_BITS, SLOTS, Config
from espalier.spec.isa import Mode
from espalier.spec.memory import COUNT_BITS

from .datapath import data_output
from .weights import weight_address

DELTA_BITS = COLUMN_BITS + 1
DELTA_STAGES = 3
"""Register stages behind the memories: operands, delta, group."""


def columns_layout(config: Config) -> data.ArrayLayout:
    return data.ArrayLayout(signed(COLUMN_BITS), config.group)


def descriptor_layout(config: Config) -> data.StructLayout:
    """`spec.memory.descriptor`, its counts as an array."""
    return data.StructLayout({"base": 16, "counts": data.ArrayLayout(COUNT_BITS, config.group)})


def offset_shape(config: Config) -> Shape:
    return Shape.cast(range((config.group - 1) * SLOTS + 1))


def magnitude(delta: Value) -> tuple[Value, Value]:
    """(m, s) with |delta| = m + s: 8 bits and the sign."""
    sign = delta[-1]
    return delta[:COLUMN_BITS] ^ sign.replicate(COLUMN_BITS), sign


def beyond(delta: Value, threshold: Value) -> Value:
    """|delta| > threshold, as one adder's carry; delta has 9 bits signed, threshold 8 unsigned."""
    value, sign = magnitude(delta)
    return (Cat(sign, value) + Cat(1, ~threshold))[-1]


def needs_two(delta: Value) -> Value:
    """|delta| > 127."""
    value, sign = magnitude(delta)
    return value[-1] | (sign & value[:-1].all())


class Deltas(wiring.Component):
    """delta = x - s of a group's columns; `sent`: |delta| > threshold; `wide`: |delta| > 127 too.

    s and the threshold count as 0 in PLAIN; x and s count as 0 in CLEAR, so that nothing is sent
    and 0 is kept. `kept` is the new last-sent value: x where sent, else s. `work` marks the sent
    ones that have words. All stages move together; `mode` and `threshold` belong to the memories'
    outputs, `present` to the delta stage's group.
    """

    def __init__(self, config: Config):
        self._group = config.group
        columns = columns_layout(config)
        super().__init__({
            "move": In(1),
            "mode": In(2),
            "threshold": In(8),
            "x": In(columns),
            "s": In(columns),
            "present": In(config.group),
            "delta": Out(data.ArrayLayout(signed(DELTA_BITS), config.group)),
            "sent": Out(config.group),
            "work": Out(config.group),
            "wide": Out(config.group),
            "kept": Out(columns),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        x, s, x_held, s_held = (
            Signal.like(self.x, name=name, reset_less=True)
            for name in ("x_now", "s_now", "x_held", "s_held")
        )
        delta = Signal.like(self.delta, name="delta_now", reset_less=True)
        threshold, threshold_held = (
            Signal.like(self.threshold, name=name, reset_less=True)
            for name in ("threshold_now", "threshold_held")
        )
        sent_value, work, wide, kept, delta_out = (
            data_output(m, getattr(self, name), f"{name}_out")
            for name in ("sent", "work", "wide", "kept", "delta")
        )
        clear, plain = self.mode == Mode.CLEAR, self.mode == Mode.PLAIN
        with m.If(self.move):
            m.d.sync += [
                # as a register's synchronous clear this costs no logic
                x.eq(Mux(clear, 0, self.x)),
                s.eq(Mux(clear | plain, 0, self.s)),
                threshold.eq(Mux(plain, 0, self.threshold)),
                threshold_held.eq(threshold),
                x_held.eq(x),
                s_held.eq(s),
                delta_out.eq(delta),
            ]
            for i in range(self._group):
                sent = beyond(delta[i], threshold_held)
                m.d.sync += [
                    delta[i].eq(x[i] - s[i]),
                    sent_value[i].eq(sent),
                    work[i].eq(sent & self.present[i]),
                    wide[i].eq(sent & needs_two(delta[i])),
                    kept[i].eq(Mux(sent, x_held[i], s_held[i])),
                ]
        return m


class Offsets(wiring.Component):
    """Column i's words begin at base + offsets[i], offsets[i] = counts[0] + ... + counts[i - 1].

    Half of the sums are made in the delta stage, half in the group stage; all stages move together
    with those of `Deltas`. `present[i]`: counts[i] > 0, for the delta stage's group.
    """

    def __init__(self, config: Config):
        self._config = config
        super().__init__({
            "move": In(1),
            "words": In(descriptor_layout(config)),
            "base": Out(weight_address(config)),
            "counts": Out(data.ArrayLayout(COUNT_BITS, config.group)),
            "offsets": Out(data.ArrayLayout(offset_shape(config), config.group)),
            "present": Out(config.group),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape, half = offset_shape(self._config), self._config.group // 2
        words, held = (
            Signal.like(self.words, name=name, reset_less=True)
            for name in ("words_now", "words_held")
        )
        base, counts, all_offsets = (
            data_output(m, getattr(self, name), f"{name}_out")
            for name in ("base", "counts", "offsets")
        )
        early = Signal(data.ArrayLayout(shape, half + 1), reset_less=True)

        def sums(first: Value, counts: list[Value]) -> list[Value]:
            result = [first]
            for count in counts:
                result.append((result[-1] + count)[: shape.width])
            return result

        first_half = sums(Const(0), list(words.counts)[:half])
        second_half = sums(early[half], list(held.counts)[half:-1])
        m.d.comb += self.present.eq(Cat(count.any() for count in held.counts))
        with m.If(self.move):
            m.d.sync += [
                words.eq(self.words),
                held.eq(words),
                base.eq(held.base),
                counts.eq(held.counts),
            ]
            for register, value in zip(early, first_half, strict=True):
                m.d.sync += register.eq(value)
            offsets = [*list(early)[:half], *second_half]
            for register, value in zip(all_offsets, offsets, strict=True):
                m.d.sync += register.eq(value)
        return m
