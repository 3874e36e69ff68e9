"""Bounded proofs of both bridges: all that their environments can do in the first cycles, and that
each kind of mistake would have been found."""

import pytest
from bridge_rules import LightweightRules, SdramRules

from espalier_hw.bridges.lightweight import LightweightBridge
from espalier_hw.bridges.sdram import SdramBridge
from espalier_sim.formal import ProofFailed, prove, reach


def sdram(*sides, kind=SdramBridge):
    return SdramRules(kind(), sides)


def broken(kind, mistake):
    """`kind` with one more assignment, which wins over its own."""

    class Broken(kind):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.d.comb += mistake(self)
            return m

    return Broken


@pytest.mark.slow
@pytest.mark.parametrize(("side", "depth"), [("write", 14), ("read", 16)])
def test_lightweight_bridge_keeps_the_rules(side, depth):
    """Ids echoed; every beat once, in order, at its address; responses passed on; no deadlock."""
    assert prove(LightweightRules(LightweightBridge(), side), depth) == depth


@pytest.mark.parametrize(("side", "depth"), [("write", 14), ("read", 16)])
def test_lightweight_proof_sees_two_bursts(side, depth):
    assert reach(LightweightRules(LightweightBridge(), side), depth)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sides", "depth"), [(("write",), 13), (("read",), 12), (("write", "read"), 9)]
)
def test_sdram_bridge_keeps_the_rules(sides, depth):
    """Every beat once and in order, bursts whole, answers after data, no deadlock, exact drain."""
    assert prove(sdram(*sides), depth) == depth


@pytest.mark.parametrize(("sides", "depth"), [(("write",), 13), (("read",), 12)])
def test_sdram_proof_sees_whole_bursts(sides, depth):
    assert reach(sdram(*sides), depth)


@pytest.mark.parametrize(
    ("side", "mistake"),
    {
        "write id": ("write", lambda b: b.bus.bid.eq(0)),
        "doubled data": ("write", lambda b: b.registers.wvalid.eq(1)),
        "deadlock": ("read", lambda b: b.bus.arready.eq(0)),
    }.values(),
)
def test_lightweight_mistakes_are_found(side, mistake):
    with pytest.raises(ProofFailed):
        prove(LightweightRules(broken(LightweightBridge, mistake)(), side), 17)


@pytest.mark.parametrize(
    ("side", "mistake"),
    {
        "early answer": ("write", lambda b: b.axi.bvalid.eq(1)),
        "lost strobes": ("write", lambda b: b.port.byteenable.eq(0xFFFF)),
        "hold ignored": ("write", lambda b: b.axi.awready.eq(1)),
        "always drained": ("read", lambda b: b.drained.eq(1)),
    }.values(),
)
def test_sdram_mistakes_are_found(side, mistake):
    with pytest.raises(ProofFailed):
        prove(sdram(side, kind=broken(SdramBridge, mistake)), 13)
