"""Quartus' reports in the form in which `make synth` has its own."""

import shutil
from pathlib import Path

import pytest

from espalier_hw.synthesis.cyclonev import Usage
from espalier_hw.synthesis.quartus_reports import Slack, read
from espalier_hw.synthesis.yosys import SynthesisError

REPORTS = Path(__file__).parent / "quartus_reports"
CLOCK = "pll|general[0].gpll~PLL_OUTPUT_COUNTER|divclk"


def test_resources_are_summed_by_unit():
    usage = read(REPORTS, "espalier").usage
    assert usage["engine.array"] == Usage(100, 5, 40, 2, 240)
    assert usage["engine"] == Usage(20, 0, 0, 0, 20)
    assert usage["memory"] == Usage(26, 4, 0, 0, 40)
    assert usage["top"] == Usage(3.5, 0, 0, 0, 10)
    assert usage[""] == Usage(149.5, 9, 40, 2, 310)


def test_clocks_are_the_slowest_corners():
    fit = read(REPORTS, "espalier")
    assert fit.clocks_mhz == {CLOCK: 103.14}
    assert fit.worst == Slack(f"Slow 1100mV 85C Model Hold '{CLOCK}'", 0.187)
    assert fit.version.startswith("20.1.1")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("espalier.fit.summary", "Successful", "Failed", "ended with 'Failed"),
        ("espalier.sta.summary", "Slack", "Slick", "no slack"),
        ("espalier.fit.rpt", "by Entity", "by Chance", "no table"),
        ("espalier.sta.rpt", None, None, "sta.rpt is missing"),
    ],
)
def test_a_report_that_says_nothing_is_an_error(tmp_path, file, old, new, said):
    shutil.copytree(REPORTS, tmp_path, dirs_exist_ok=True)
    changed = tmp_path / file
    if old is None:
        changed.unlink()
    else:
        changed.write_text(changed.read_text().replace(old, new))
    with pytest.raises(SynthesisError, match=said):
        read(tmp_path, "espalier")
