"""The ULX3S' clock, pins and build, without the minutes that synthesis takes."""

from __future__ import annotations

import pytest
from amaranth_boards.ulx3s import ULX3S_85F_Platform

from espalier.spec.config import TINY
from espalier_hw.boards import ulx3s_build
from espalier_hw.boards.ulx3s_build import main
from espalier_hw.boards.ulx3s_top import BAUD, OSCILLATION_MHZ, OSCILLATOR_MHZ, Pll, Ulx3sTop
from espalier_hw.bridges.serial_uart import clocks_per_bit
from espalier_hw.synthesis.ecp5 import Routed
from espalier_hw.synthesis.yosys import SynthesisError


@pytest.mark.parametrize("clock_mhz", [25, 37.5, 50, 62.5, 75, 80, 85, 90, 100, 125])
def test_the_pll_makes_the_clock_within_its_limits(clock_mhz):
    pll = Pll.of(clock_mhz)
    assert OSCILLATOR_MHZ * pll.feedback / pll.reference == clock_mhz
    assert OSCILLATION_MHZ[0] <= clock_mhz * pll.output <= OSCILLATION_MHZ[1]


def test_the_pll_of_80_mhz_is_that_of_the_reference_tool():
    """ecppll -i 25 -o 80 gives 5 and 16 as well; any output divider in its range does."""
    assert (Pll.of(80).reference, Pll.of(80).feedback) == (5, 16)


def test_a_clock_that_the_pll_cannot_make_is_refused():
    with pytest.raises(ValueError, match=r"clock_mhz must be 25 MHz times a fraction .* not 81"):
        Pll.of(81)


@pytest.mark.parametrize(("clock_hz", "baud", "clocks"), [(80e6, BAUD, 27), (8e6, 2_000_000, 4)])
def test_divisors_of_the_serial_line(clock_hz, baud, clocks):
    assert clocks_per_bit(clock_hz, baud) == clocks


@pytest.mark.parametrize(
    ("clock_hz", "baud", "message"),
    [
        (80e6, 30_000_000, "baud must be at most 20000000, not 30000000"),
        (20e6, BAUD, r"baud must be within 2% of .* 3000000 is -4.8% off"),
    ],
)
def test_impossible_rates_are_refused(clock_hz, baud, message):
    with pytest.raises(ValueError, match=message):
        clocks_per_bit(clock_hz, baud)


def test_pins_and_clock_are_the_boards():
    """The FT231X's wires and the oscillator of the ULX3S' constraint file; LED 0 to 7."""
    plan = ULX3S_85F_Platform().prepare(Ulx3sTop(TINY, clock_mhz=80))
    pins = plan.files["top.lpf"]
    leds = ["B2", "C2", "C1", "D2", "D1", "E2", "E1", "H3"]
    wanted = {"uart_0__rx__io": "M1", "uart_0__tx__io": "L4", "clk25_0__io": "G2"}
    for name, site in {**wanted, **{f"led_{n}__io": led for n, led in enumerate(leds)}}.items():
        assert f'LOCATE COMP "{name}" SITE "{site}";' in pins
    assert 'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ;' in pins
    assert plan.files["top.il"].count("cell \\EHXPLLL ") == 1


ROUTED = Routed(78.5, {"DP16KD": (205, 208)}, ["logic 1.00 ns a -> b"])


def pretend(monkeypatch, result):
    def build(*arguments, **options):
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(ulx3s_build, "build", build)


def call(tmp_path, *arguments):
    tmp_path.mkdir(exist_ok=True)
    return main(["--config", "TINY", "--folder", str(tmp_path), *arguments])


def test_a_clock_that_is_met_gives_the_table(monkeypatch, tmp_path, capsys):
    pretend(monkeypatch, ROUTED)
    assert call(tmp_path, "--clock-mhz", "75") == 0
    text = (tmp_path / "report.md").read_text()
    assert "78.5 MHz, constraint 75 MHz" in text and "| DP16KD | 205 | 208 | 99% |" in text
    assert text in capsys.readouterr().out


def test_a_clock_that_is_missed_fails_with_the_path(monkeypatch, tmp_path, capsys):
    pretend(monkeypatch, ROUTED)
    assert call(tmp_path, "--clock-mhz", "80") == 1
    said = capsys.readouterr()
    assert "timing fails: 78.5 MHz of 80 MHz" in said.err
    assert "logic 1.00 ns a -> b" in said.out


@pytest.mark.parametrize("error", [SynthesisError("nextpnr-ecp5 is missing: pip"), ValueError("x")])
def test_what_is_missing_is_said_in_a_line(monkeypatch, tmp_path, capsys, error):
    pretend(monkeypatch, error)
    assert call(tmp_path) == 1
    assert f"error: {error}" in capsys.readouterr().err
