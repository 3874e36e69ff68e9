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


class _Registers:
    """What all stages work on; `begins`, `loads`, `roots`, `factors` and `offsets` say what the
    cycle is for, `fits` whether its subtraction leaves no less than 0."""

    def __init__(self) -> None:
        self.magnitude = data_register(TOTAL_BITS, "magnitude")
        self.count = data_register(COUNT_BITS + 1, "count")
        self.kept = data_register(
            data.StructLayout({"kind": 3, "gain": 4, "scalar": SCALAR_INDEX_BITS, "positive": 1}),
            "kept",
        )
        self.left, self.feed = Signal(6, name="left"), data_register(TOTAL_BITS, "feed")
        self.radicand = data_register(RADICAND_BITS, "radicand")
        self.rest = data_register(REST_BITS, "rest")
        self.root = data_register(ROOT_BITS, "root")
        self.begins, self.loads = Signal(name="begins"), Signal(name="loads")
        self.roots, self.factors = Signal(name="roots"), Signal(name="factors")
        self.offsets, self.fits = Signal(name="offsets"), Signal(name="fits")

    @property
    def highest_count(self) -> Value:
        """The count as a numerator: its first bit comes first."""
        return self.count << (TOTAL_BITS - len(self.count))

    def divide(self, m: Module, numerator: Value, steps: int) -> None:
        """Begin a quotient of so many bits, and of as many more as the gain says."""
        m.d.sync += [
            self.rest.eq(0),
            self.feed.eq(numerator),
            self.left.eq(steps - 1 + self.kept.gain),
        ]


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
        m, r = Module(), _Registers()
        variance = self._variance(m, r.magnitude, r.count, self.reductions.payload.squares)
        self._step(m, r)
        m.d.comb += r.begins.eq(0)
        with m.FSM():
            with m.State("REST"):
                self._take(m, r)
                with m.If(self.reductions.valid):
                    m.next = "PREPARE"
            with m.State("PREPARE"):
                self._prepare(m, r, variance)
            with m.State("ROOT"):
                m.d.comb += r.roots.eq(1)
                with m.If(r.left == 0):
                    r.divide(m, r.highest_count, FACTOR_STEPS)
                    m.next = "FACTOR"
            with m.State("FACTOR"):
                m.d.comb += r.factors.eq(1)
                with m.If(r.left == 0):
                    r.divide(m, r.magnitude, OFFSET_STEPS)
                    m.next = "OFFSET"
                    with m.If(r.kept.kind == Sums.MASS):
                        m.next = "WRITE"
                self._release(m, r, Sums.MASS)
            with m.State("OFFSET"):
                m.d.comb += r.offsets.eq(1)
                self._release(m, r, Sums.MOMENTS)
                with m.If(r.left == 0):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += self.written.eq(1)
                m.next = "REST"
        m.d.comb += self.write.scalar.eq(r.kept.scalar)
        self._factor(m, r, self.reductions.payload)
        self._offset(m, r)
        return m

    @staticmethod
    def _step(m: Module, r: _Registers) -> None:
        """One bit of the root or of the quotient, as `rest` and `feed` or `radicand` say."""
        minuend, difference = Signal(REST_BITS), Signal(REST_BITS + 1)
        m.d.comb += [
            minuend.eq(Mux(r.roots, Cat(r.radicand[-2:], r.rest), Cat(r.feed[-1], r.rest))),
            difference.eq(minuend - Mux(r.roots, Cat(C(1, 2), r.root), r.root)),
            r.fits.eq(~difference[-1]),
        ]
        m.d.sync += [
            r.rest.eq(Mux(r.fits, difference, minuend)),
            r.feed.eq(r.feed << 1),
            r.radicand.eq(r.radicand << 2),
            r.left.eq(r.left - 1),
        ]
        with m.If(r.roots):
            m.d.sync += r.root.eq(Cat(r.fits, r.root))

    def _take(self, m: Module, r: _Registers) -> None:
        """What the work needs of a reduction; its squares stay at the port meanwhile."""
        reduction = self.reductions.payload
        total = reduction.total
        m.d.sync += [
            r.kept.kind.eq(reduction.kind),
            r.kept.gain.eq(reduction.gain),
            r.kept.scalar.eq(reduction.scalar),
            r.kept.positive.eq(~total[-1]),
            r.magnitude.eq((total ^ total[-1].replicate(TOTAL_BITS)) + total[-1]),
            r.count.eq(Mux(reduction.kind == Sums.MASS, MASS_COUNT, reduction.most + 1)),
            r.root.eq(0),
            r.left.eq(2),
        ]
        m.d.comb += r.begins.eq(1)

    def _prepare(self, m: Module, r: _Registers, variance: Value) -> None:
        """The divisor: ones for a maximum, the mass, or first the variance's root."""
        mass = r.magnitude[COLUMN_SHIFT:]
        with m.Switch(r.kept.kind):
            with m.Case(Sums.MAXIMUM):
                m.d.comb += [r.loads.eq(1), self.released.eq(1)]
                m.d.sync += r.root.eq(-1)
                r.divide(m, C(0), 0)
                m.next = "OFFSET"
                with m.If(r.kept.gain == 0):
                    m.next = "WRITE"
            with m.Case(Sums.MASS):
                m.d.sync += r.root.eq(mass)
                with m.If(~r.kept.positive | (mass == 0)):
                    m.d.sync += r.root.eq(1)
                r.divide(m, r.highest_count, FACTOR_STEPS)
                m.next = "FACTOR"
            with m.Default():
                with m.If(r.left == 0):
                    m.d.sync += [r.radicand.eq(variance), r.rest.eq(0), r.left.eq(ROOT_BITS - 1)]
                    m.next = "ROOT"
        with m.If((r.kept.kind != Sums.MOMENTS) | (r.left == 0)):
            m.d.comb += self.reductions.ready.eq(1)

    def _release(self, m: Module, r: _Registers, kind: Sums) -> None:
        """Reductions of this kind are released before the end of the state."""
        with m.If(r.kept.kind == kind):
            m.d.comb += self.released.eq(r.left == RELEASE_CYCLES - 1)

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

    def _factor(self, m: Module, r: _Registers, reduction: data.View) -> None:
        """Multiplier and shift: `numerics.narrow_scale` of a quotient that comes highest bit
        first."""
        factor = data_register(MULTIPLIER_BITS, "factor")
        shift, frozen = data_register(2, "shift"), data_register(1, "frozen")
        looks = Cat(r.left == ROW_STEP * i for i in range(1, len(SHIFTS))).any()
        roomy = ~factor[MULTIPLIER_BITS - ROW_STEP - 1 : -1].any()
        with m.If(r.begins):
            # what a maximum keeps; the others shift it out
            m.d.sync += [factor.eq(0), shift.eq(0), frozen.eq(0)]
            with m.If(reduction.kind == Sums.MAXIMUM):
                m.d.sync += factor.eq(1 << SHIFTS[0] << reduction.gain[:3])
        with m.Elif(r.factors & ~frozen):
            m.d.sync += factor.eq(Cat(r.fits, factor))
            with m.If(factor[-1]):
                m.d.sync += [factor.eq(-1), frozen.eq(1)]
            with m.Elif(looks):
                m.d.sync += [shift.eq(shift + roomy), frozen.eq(~roomy)]
        m.d.comb += [self.write.scale.multiplier.eq(factor), self.write.scale.shift.eq(shift)]

    def _offset(self, m: Module, r: _Registers) -> None:
        """Bias: a maximum, or a quotient that comes highest bit first, saturated, with the other
        sign."""
        offset, over = data_register(BIAS_BITS - 1, "offset"), data_register(1, "over")
        with m.If(r.begins):
            m.d.sync += [offset.eq(0), over.eq(0)]
        with m.Elif(r.loads):
            m.d.sync += offset.eq(r.magnitude[COUNT_BITS:])
        with m.Elif(r.offsets):
            m.d.sync += offset.eq(Cat(r.fits, offset))
            with m.If(offset[-1]):
                m.d.sync += [offset.eq(-1), over.eq(1)]
        sign = r.kept.positive.replicate(BIAS_BITS)
        m.d.comb += self.write.scale.bias.eq((offset ^ sign) + (r.kept.positive & ~over))
