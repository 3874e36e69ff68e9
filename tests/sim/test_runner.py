"""The bench runner reports failures: a bench that fails, and one without tests."""

from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out

from espalier.spec.config import TINY, Config
from espalier_sim.runner import BenchFailed, run

BENCH = """
import cocotb
from espalier_sim.benches.host import start_clock
from cocotb.triggers import RisingEdge

@cocotb.test()
async def follows(dut):
    dut.i.value = 1
    await start_clock(dut)
    await RisingEdge(dut.clk)
    assert dut.o.value == {expected}
"""


class Follower(Component):
    """o is i, a cycle later."""

    i: In(1)
    o: Out(1)

    def __init__(self, config: Config):
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.eq(self.i)
        return m


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "follower.py"


def test_a_bench_that_holds_passes(bench: Path) -> None:
    bench.write_text(BENCH.format(expected=1))
    run("follower", TINY, Follower, "icarus")


def test_a_bench_that_fails_is_reported_with_its_log(bench: Path) -> None:
    bench.write_text(BENCH.format(expected=0))
    with pytest.raises(BenchFailed, match=r"1 of 1 tests failed") as failure:
        run("follower", TINY, Follower, "icarus", seed=7)
    assert "follower on icarus, seed 7" in str(failure.value)
    assert "AssertionError" in str(failure.value)


def test_a_bench_without_tests_is_a_failure(bench: Path) -> None:
    bench.write_text("")
    with pytest.raises(BenchFailed):
        run("follower", TINY, Follower, "icarus")


def test_waves_are_written(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVES", "1")
    bench.write_text(BENCH.format(expected=1))
    run("follower", TINY, Follower, "icarus")
    assert list(bench.parent.glob("build/sim/*/seed0/top.fst"))
