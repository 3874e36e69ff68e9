"""Equal modules are merged, different ones are not, and the result still simulates as Verilog would
read it."""

from amaranth.hdl import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from espalier_hw.rtlil import convert


class Step(wiring.Component):
    def __init__(self, amount):
        self.amount = amount
        super().__init__({"a": In(8), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.a + self.amount)
        return m


class Chain(wiring.Component):
    def __init__(self, amounts):
        self.amounts = amounts
        super().__init__({"a": In(8), "o": Out(8)})

    def elaborate(self, platform):
        m = Module()
        value = self.a
        for i, amount in enumerate(self.amounts):
            m.submodules[f"step_{i}"] = step = Step(amount)
            m.d.comb += step.a.eq(value)
            value = step.o
        m.d.comb += self.o.eq(value)
        return m


def modules(text):
    return [line.split()[1] for line in text.splitlines() if line.startswith("module ")]


def test_equal_leaves_are_merged():
    text = convert(Chain([1, 1, 1, 1]))
    assert modules(text) == ["\\top", "\\top.step_0"]
    assert text.count("cell \\top.step_0 ") == 4


def test_different_leaves_stay():
    assert len(modules(convert(Chain([1, 2, 1])))) == 3


def test_the_top_is_marked_once():
    text = convert(Chain([3]))
    assert text.count("attribute \\top 1") == 1 and text.index("attribute \\top 1") < text.index(
        "module \\top\n"
    )
