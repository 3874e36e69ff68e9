"""From drained slots to 16-bit values: the first half of a vector lane.

Every stage is one multiply, one two-operand add or one 4:1 selection. Data registers have no reset:
validity travels beside them.
"""

from amaranth.hdl import *
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from espalier.spec.config import SUM_BITS, VALUE_BITS
from espalier.spec.isa import Scale
from espalier.spec.memory import PARAMETER
from espalier.spec.numerics import BIAS_BITS, GUARD_BITS, MULTIPLIER_BITS, SHIFTS

from .chip import is_ecp5
from .datapath import data_output, data_register
from .interfaces import struct


class Select(enum.Enum, shape=2):
    """What one cycle brings."""

    ZERO = 0
    DRAIN = 1
    OPERAND = 2
    ITEM = 3


PARAMETER_LAYOUT = struct(PARAMETER)
"""Row parameters as they lie in a lane's memory: 40 bits, one M10K word."""
IDENTITY = {"multiplier": 1 << SHIFTS[0], "shift": 0, "bias": 0}
"""Row parameters of scale 1: an unscaled value takes the same way as a scaled one."""


def saturated(value: Value, width: int, over: ValueLike = 0, sign: ValueLike = 0) -> Value:
    """`value` saturated to `width` signed bits; with `over` what lies beyond on the side of `sign`,
    whatever `value` is."""
    top = value[width - 1 :]
    fits = (top.all() | ~top.any()) & ~Value.cast(over)
    sign = Mux(over, sign, value[-1])
    return Mux(fits, value[:width], Cat((~sign).replicate(width - 1), sign)).as_signed()


def with_carry(a: Value, b: Value, carry: Value) -> Value:
    """a + b + carry as one adder: the carry enters through one more bit below. Both are signed, or
    neither."""
    longer = Cat(1, a), Cat(carry, b)
    if a.shape().signed:
        longer = longer[0].as_signed(), longer[1].as_signed()
    return (longer[0] + longer[1]) >> 1


class Accumulate(wiring.Component):
    """total = source + stored: the selected source, joined over digit planes, plus the stored sum.

    The source is 0, `drained`, `operand` or a loader's `item` on its way into the sum memory; with
    `joins` it is the low digit plane, to which 16·source(before) is added. 27 bits that wrap (the
    final value is proven to fit). Latency 4 cycles; `stored` is taken 1 cycle after the source,
    with `add`.

    Parameters
    ----------
    drained_bits: width of a drained row.
    """

    LATENCY = 4

    def __init__(self, drained_bits: int):
        super().__init__(
            {
                "select": In(Select),
                "joins": In(1),
                "drained": In(signed(drained_bits)),
                "operand": In(signed(VALUE_BITS)),
                "item": In(signed(SUM_BITS)),
                "stored": In(signed(SUM_BITS)),
                "add": In(1),
                "total": Out(signed(SUM_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        source = data_register(signed(SUM_BITS), "source")
        high = data_register(self.drained.shape(), "high")
        joined = data_register(signed(SUM_BITS), "joined")
        stored = data_register(signed(SUM_BITS), "stored_or_zero")

        # Stage 1: select; a high plane sits in `source` when its low plane arrives.
        with m.Switch(self.select):
            with m.Case(Select.ZERO):
                m.d.sync += source.eq(0)
            with m.Case(Select.DRAIN):
                m.d.sync += source.eq(self.drained)
            with m.Case(Select.OPERAND):
                m.d.sync += source.eq(self.operand)
            with m.Case(Select.ITEM):
                m.d.sync += source.eq(self.item)
        m.d.sync += high.eq(source)
        with m.If(~self.joins):
            m.d.sync += high.eq(0)

        # Stage 2: join planes, beside the stored sum's register.
        m.d.sync += [joined.eq(source + (high << 4)), stored.eq(self.stored)]
        with m.If(~self.add):
            m.d.sync += stored.eq(0)

        # Stages 3, 4: add the stored sum; a register of the DSP block.
        total = data_register(signed(SUM_BITS), "total_computed")
        m.d.sync += [total.eq(joined + stored), data_output(m, self.total, "total_again").eq(total)]
        return m


class Requantize(wiring.Component):
    """value = sat16 of `numerics.scale_sum` or `scale_by_scalar`(total, parameter), or sat16(total)
    without `scale`.

    The equation is ((floor(total·multiplier / 2^(shift-4)) + b + 8) >> 4) + c, where b is a row's
    bias and c a scalar's, the other one 0: neither costs an adder of its own.
    Latency 6 cycles from `total`; `parameter` and `scale` come one cycle before it. The floor is
    cut to 25 bits before the bias: in units of its last bit a bias has at most 24 bits, so whatever
    does not fit there saturates to its own side of 16 bits in the end.
    An ECP5 multiplies in two halves and adds them in the stage in which others wait for `over`.
    """

    LATENCY = 6
    FLOOR_BITS = BIAS_BITS + GUARD_BITS + 1
    PRODUCT_BITS = SUM_BITS + MULTIPLIER_BITS

    total: In(signed(SUM_BITS))
    parameter: In(PARAMETER_LAYOUT)
    scale: In(2)
    value: Out(signed(VALUE_BITS))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Stages 0, 1: the DSP block with its registers (the total's is the stage before us).
        parameter = Signal(PARAMETER_LAYOUT, reset_less=True)
        m.d.sync += parameter.eq(self.parameter)
        with m.If(self.scale == Scale.NONE):
            m.d.sync += parameter.eq(PARAMETER_LAYOUT.const(IDENTITY))
        halves = is_ecp5(platform)
        product = (self._halves if halves else self._whole)(m, parameter.multiplier)

        biases = [parameter.bias]
        for stage in range(1, 5):
            biases.append(data_register(signed(BIAS_BITS), f"bias_{stage}"))
            m.d.sync += biases[stage].eq(biases[stage - 1])
        scalar, row_bias = data_register(4, "scalar"), data_register(signed(BIAS_BITS), "row_bias")
        m.d.sync += [
            scalar.eq(Cat(self.scale == Scale.SCALAR, scalar)),
            row_bias.eq(biases[2]),
        ]
        # A clear of a register costs nothing, a selection does.
        with m.If(scalar[2]):
            m.d.sync += row_bias.eq(0)
        with m.If(~scalar[3]):
            m.d.sync += biases[4].eq(0)
        floor, over, negative = self._shift(m, product, parameter.shift, late=halves)

        # Stages 4 to 6: add the bias, round the guard bits away, saturate.
        biased = data_register(signed(self.FLOOR_BITS + 1), "biased")
        # only one of the two biases is there: a sum of 22 bits
        rounded = data_register(signed(self.FLOOR_BITS + 1 - GUARD_BITS), "rounded")
        m.d.sync += [
            biased.eq(floor + row_bias),
            rounded.eq(with_carry(biased >> GUARD_BITS, biases[4], biased[GUARD_BITS - 1])),
        ]
        for stage in (5,) if halves else (4, 5):
            later = data_register(2, f"over_{stage}")
            m.d.sync += later.eq(Cat(over, negative))
            over, negative = later
        value = saturated(rounded, VALUE_BITS, over, negative)
        m.d.sync += data_output(m, self.value, "saturated").eq(value)
        return m

    def _whole(self, m: Module, multiplier: Value) -> Value:
        """The product, after stage 1."""
        product = data_register(signed(self.PRODUCT_BITS), "product")
        m.d.sync += product.eq(self.total * multiplier)
        return product

    def _halves(self, m: Module, multiplier: Value) -> Value:
        """The product, after stage 2, from signed multipliers of 18 x 18: the multiplier's highest
        bit counts 2^18 more than as a sign."""
        cut, factor = MULTIPLIER_BITS - 1, multiplier.as_signed()
        low = data_register(signed(2 * MULTIPLIER_BITS - 1), "low")
        high = data_register(signed(self.PRODUCT_BITS - cut), "high")
        more = data_register(signed(SUM_BITS), "more")
        product = data_register(signed(self.PRODUCT_BITS), "product")
        m.d.sync += [
            low.eq(Cat(self.total[:cut], 0).as_signed() * factor),
            high.eq(self.total[cut:].as_signed() * factor),
            more.eq(Mux(factor[-1], self.total, 0)),
            product.eq(Cat(low[:cut], high + (low >> cut) + (more << 1))),
        ]
        return product

    def _shift(
        self, m: Module, product: Value, shift: Value, *, late: bool
    ) -> tuple[Value, Value, Value]:
        """Stages 2 and 3: the product shifted by SHIFTS[shift] - 4, its low 25 bits; that it needs
        more; and its sign. A `late` product is there a stage later, and these two as well."""
        steps = [step - GUARD_BITS for step in SHIFTS]
        extended = Cat(product, product[-1].replicate(self.FLOOR_BITS))
        width, sign = self.FLOOR_BITS, product[-1]
        shift_1 = data_register(2, "shift_1")
        shift_2 = data_register(2, "shift_2")
        shifted = data_register(width, "shifted")
        sign_2, sign_3 = data_register(1, "sign_2"), data_register(1, "sign_3")
        # Bit i: bits that overflow for shifts up to the i-th differ from the sign.
        differs = data_register(len(SHIFTS), "differs")
        floor, over = data_register(signed(width), "floor"), data_register(1, "over")

        if late:
            shift_0 = data_register(2, "shift_0")
            m.d.sync += shift_0.eq(shift)
            shift = shift_0
        m.d.sync += [shift_1.eq(shift), shift_2.eq(shift_1), sign_2.eq(sign)]
        m.d.sync += shifted.eq(
            data.ArrayLayout(width, len(steps))(Cat(extended[s : s + width] for s in steps))[
                shift_1
            ]
        )
        ends = [step + width - 1 for step in steps[1:]] + [self.PRODUCT_BITS]
        ends = [min(end, self.PRODUCT_BITS - 1) for end in ends]
        for i, (step, end) in enumerate(zip(steps, ends, strict=True)):
            band = product[min(step + width - 1, end) : end]
            m.d.sync += differs[i].eq(Mux(sign, ~band.all(), band.any()))

        overflow = Array(differs[i:].any() for i in range(len(steps)))[shift_2]
        m.d.sync += [over.eq(overflow), sign_3.eq(sign_2)]
        if late:
            m.d.comb += floor.eq(shifted)
        else:
            m.d.sync += floor.eq(shifted)
        return floor, over, sign_3
