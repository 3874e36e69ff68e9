"""From reductions to scalars: square root and quotients, one bit a cycle."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.isa import Sums
from espalier.spec.numerics import BIAS_BITS, COLUMN_SHIFT, MULTIPLIER_BITS, NORM_BITS, SHIFTS

from .datapath import data_register
from .vector_reduce import COUNT_BITS, REDUCTION_LAYOUT, SCALAR_INDEX_BITS, TOTAL_BITS
from .vector_sum import PARAMETER_LAYOUT

ROOT_BITS = 32
"""The radicand has at most 2·(16 + 12) - 1 bits and 8 more for NORM_BITS."""
RADICAND_BITS = 2 * (ROOT_BITS - NORM_BITS)
REST_BITS = ROOT_BITS + 2
LOW_BITS = 22
"""Where the sum of squares is cut for two multipliers."""
MASS_COUNT = 1 << (COLUMN_SHIFT - NORM_BITS)
"""What a mass divides, in place of a number of elements, by the same number of steps."""
ROW_STEP = SHIFTS[1] - SHIFTS[0]
FACTOR_STEPS = COUNT_BITS + 1 + SHIFTS[-1] + NORM_BITS
OFFSET_STEPS = TOTAL_BITS + NORM_BITS
"""Bits of the quotients with a gain of 0."""
RELEASE_CYCLES = 4
"""Most cycles from `released` to `written`."""
SCALAR_WRITE = data.StructLayout({"scalar": SCALAR_INDEX_BITS, "scale": PARAMETER_LAYOUT})


class ScalarUnit(wiring.Component):
    """`numerics.maximum_scalar`, `mass_scalar` and `moments_scalar` of reductions, one at a time.

    One subtraction a cycle is a step of the square root (two bits of the radicand come down) or of
    a division (one bit of the numerator does). Both divide by `root`, where a mass is put. A
    maximum is only shifted: into its `root` of ones nothing fits.
    The factor keeps its first 18 bits: after 18, 12 and 6 bits before the end it is looked at
    whether it has room for six more, which says its shift as well.

    Cycles from a reduction to `written`, with gain g: MAXIMUM 2 + g, MASS 45 + g, MOMENTS
    111 + 2·g.

    Members
    -------
    reductions: a word stays until its products are taken.
    written: pulse with `write`: the parameters of `write.scalar`.
    released: pulse for every reduction, at most `RELEASE_CYCLES` cycles before `written`;
        `write.scalar` is there.
    """

    reductions: In(stream.Signature(REDUCTION_LAYOUT))
    written: Out(1)
    released: Out(1)
    write: Out(SCALAR_WRITE)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        reduction = self.reductions.payload
        magnitude = data_register(TOTAL_BITS, "magnitude")
        count = data_register(COUNT_BITS + 1, "count")
        kept = data_register(
            data.StructLayout({"kind": 3, "gain": 4, "scalar": SCALAR_INDEX_BITS, "positive": 1}),
            "kept",
        )
        left, feed = Signal(6), data_register(TOTAL_BITS, "feed")
        radicand = data_register(RADICAND_BITS, "radicand")
        rest, root = data_register(REST_BITS, "rest"), data_register(ROOT_BITS, "root")
        begins, loads, roots, factors, offsets = (Signal() for _ in range(5))
        variance = self._variance(m, magnitude, count, reduction.squares)
        maximum, mass = magnitude[COUNT_BITS:], magnitude[COLUMN_SHIFT:]

        # One step: root or quotient.
        minuend, fits = Signal(REST_BITS), Signal()
        difference = Signal(REST_BITS + 1)
        m.d.comb += [
            minuend.eq(Mux(roots, Cat(radicand[-2:], rest), Cat(feed[-1], rest))),
            difference.eq(minuend - Mux(roots, Cat(C(1, 2), root), root)),
            fits.eq(~difference[-1]),
        ]
        m.d.sync += [
            rest.eq(Mux(fits, difference, minuend)),
            feed.eq(feed << 1),
            radicand.eq(radicand << 2),
            left.eq(left - 1),
        ]
        with m.If(roots):
            m.d.sync += root.eq(Cat(fits, root))

        def start(numerator: Value, steps: int, gain: Value) -> None:
            m.d.sync += [rest.eq(0), feed.eq(numerator), left.eq(steps - 1 + gain)]

        m.d.comb += begins.eq(0)
        with m.FSM():
            with m.State("REST"):
                total = reduction.total
                m.d.sync += [
                    kept.kind.eq(reduction.kind),
                    kept.gain.eq(reduction.gain),
                    kept.scalar.eq(reduction.scalar),
                    kept.positive.eq(~total[-1]),
                    magnitude.eq((total ^ total[-1].replicate(TOTAL_BITS)) + total[-1]),
                    count.eq(Mux(reduction.kind == Sums.MASS, MASS_COUNT, reduction.most + 1)),
                    root.eq(0),
                    left.eq(2),
                ]
                m.d.comb += begins.eq(1)
                with m.If(self.reductions.valid):
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                with m.Switch(kept.kind):
                    with m.Case(Sums.MAXIMUM):
                        m.d.comb += [loads.eq(1), self.released.eq(1)]
                        m.d.sync += root.eq(-1)
                        start(C(0), 0, kept.gain)
                        m.next = "OFFSET"
                        with m.If(kept.gain == 0):
                            m.next = "WRITE"
                    with m.Case(Sums.MASS):
                        m.d.sync += root.eq(mass)
                        with m.If(~kept.positive | (mass == 0)):
                            m.d.sync += root.eq(1)
                        start(count << (TOTAL_BITS - len(count)), FACTOR_STEPS, kept.gain)
                        m.next = "FACTOR"
                    with m.Default():
                        with m.If(left == 0):
                            m.d.sync += [radicand.eq(variance), rest.eq(0), left.eq(ROOT_BITS - 1)]
                            m.next = "ROOT"
                with m.If((kept.kind != Sums.MOMENTS) | (left == 0)):
                    m.d.comb += self.reductions.ready.eq(1)
            with m.State("ROOT"):
                m.d.comb += roots.eq(1)
                with m.If(left == 0):
                    start(count << (TOTAL_BITS - len(count)), FACTOR_STEPS, kept.gain)
                    m.next = "FACTOR"
            with m.State("FACTOR"):
                m.d.comb += factors.eq(1)
                with m.If(left == 0):
                    start(magnitude, OFFSET_STEPS, kept.gain)
                    m.next = "OFFSET"
                    with m.If(kept.kind == Sums.MASS):
                        m.next = "WRITE"
                with m.If(kept.kind == Sums.MASS):
                    m.d.comb += self.released.eq(left == RELEASE_CYCLES - 1)
            with m.State("OFFSET"):
                m.d.comb += offsets.eq(1)
                with m.If(kept.kind == Sums.MOMENTS):
                    m.d.comb += self.released.eq(left == RELEASE_CYCLES - 1)
                with m.If(left == 0):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += self.written.eq(1)
                m.next = "REST"
        m.d.comb += self.write.scalar.eq(kept.scalar)
        self._factor(m, begins, factors, fits, left, reduction)
        self._offset(m, begins, loads, maximum, offsets, fits, kept.positive)
        return m

    @staticmethod
    def _variance(m: Module, magnitude: Value, count: Value, squares: Value) -> Value:
        """count·squares - magnitude², three cycles after its inputs have settled."""
        names = ("count_low", "count_high", "magnitude_squared")
        # 27 bits fill a multiplier; the 28th is 1 only when all others are 0
        low, top = magnitude[:-1], magnitude[-1]
        factors = ((count, squares[:LOW_BITS]), (count, squares[LOW_BITS:]), (low, low))
        products = {}
        for name, (a, b) in zip(names, factors, strict=True):
            products[name] = data_register(len(a) + len(b), name)
            m.d.sync += products[name].eq(a * b)
        weighted = data_register(RADICAND_BITS, "weighted")
        square = data_register(RADICAND_BITS, "square")
        m.d.sync += [
            weighted.eq(products["count_low"] + (products["count_high"] << LOW_BITS)),
            square.eq(Cat(products["magnitude_squared"], top)),
        ]
        return (weighted - square)[:RADICAND_BITS]

    def _factor(
        self, m: Module, begins: Value, steps: Value, fits: Value, left: Value, reduction: data.View
    ) -> None:
        """Multiplier and shift: `numerics.narrow_scale` of a quotient that comes highest bit
        first."""
        factor = data_register(MULTIPLIER_BITS, "factor")
        shift, frozen = data_register(2, "shift"), data_register(1, "frozen")
        looks = Cat(left == ROW_STEP * i for i in range(1, len(SHIFTS))).any()
        roomy = ~factor[MULTIPLIER_BITS - ROW_STEP - 1 : -1].any()
        with m.If(begins):
            # what a maximum keeps; the others shift it out
            m.d.sync += [factor.eq(0), shift.eq(0), frozen.eq(0)]
            with m.If(reduction.kind == Sums.MAXIMUM):
                m.d.sync += factor.eq(1 << SHIFTS[0] << reduction.gain[:3])
        with m.Elif(steps & ~frozen):
            m.d.sync += factor.eq(Cat(fits, factor))
            with m.If(factor[-1]):
                m.d.sync += [factor.eq(-1), frozen.eq(1)]
            with m.Elif(looks):
                m.d.sync += [shift.eq(shift + roomy), frozen.eq(~roomy)]
        m.d.comb += [self.write.scale.multiplier.eq(factor), self.write.scale.shift.eq(shift)]

    def _offset(
        self,
        m: Module,
        begins: Value,
        loads: Value,
        maximum: Value,
        steps: Value,
        fits: Value,
        positive: Value,
    ) -> None:
        """Bias: a maximum, or a quotient that comes highest bit first, saturated, with the other
        sign."""
        offset, over = data_register(BIAS_BITS - 1, "offset"), data_register(1, "over")
        with m.If(begins):
            m.d.sync += [offset.eq(0), over.eq(0)]
        with m.Elif(loads):
            m.d.sync += offset.eq(maximum)
        with m.Elif(steps):
            m.d.sync += offset.eq(Cat(fits, offset))
            with m.If(offset[-1]):
                m.d.sync += [offset.eq(-1), over.eq(1)]
        sign = positive.replicate(BIAS_BITS)
        m.d.comb += self.write.scale.bias.eq((offset ^ sign) + (positive & ~over))
