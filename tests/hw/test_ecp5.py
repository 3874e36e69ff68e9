"""The clock of a unit on an ECP5: what is asked for is what is recorded, without the router."""

from __future__ import annotations

import json

import pytest

from espalier.spec.config import TINY
from espalier_hw.synthesis import ecp5
from espalier_hw.synthesis.ecp5 import Routed, read_report
from espalier_hw.synthesis.yosys import SynthesisError

ROUTED = Routed(93.5, {"TRELLIS_FF": (10, 83640)}, ["routing 1.00 ns a -> b"])


def test_a_unit_is_recorded_under_its_own_name_beside_older_results(tmp_path, monkeypatch, capsys):
    file = tmp_path / "ecp5.json"
    file.write_text(json.dumps({"SMALL": {"clock_mhz": 61.5}}))
    asked = {}

    def route(component, folder, **options):
        asked.update(options, component=component, folder=folder.name)
        return ROUTED

    monkeypatch.setattr(ecp5, "route", route)
    monkeypatch.setattr(ecp5, "_unit", lambda name, config: (config.name, name))
    arguments = ["ecp5", "--config", "TINY", "--unit", "feeder", "--clock-mhz", "80"]
    monkeypatch.setattr("sys.argv", [*arguments, "--record", str(file)])
    assert ecp5.main() == 0
    assert asked == {
        "clock_mhz": 80,
        "seed": 1,
        "component": ("TINY", "feeder"),
        "folder": "TINY-feeder",
    }
    results = json.loads(file.read_text())
    assert results["SMALL"] == {"clock_mhz": 61.5}
    assert results["TINY feeder"]["clock_mhz"] == 93.5
    assert "TINY feeder: 93.5 MHz of 80" in capsys.readouterr().out


def test_a_failing_tool_is_an_error_without_a_result(tmp_path, monkeypatch, capsys):
    def route(*_, **__):
        raise SynthesisError("nextpnr-ecp5 is missing")

    monkeypatch.setattr(ecp5, "route", route)
    monkeypatch.setattr(ecp5, "_unit", lambda name, config: (config.name, name))
    file = tmp_path / "ecp5.json"
    monkeypatch.setattr("sys.argv", ["ecp5", "--config", "TINY", "--record", str(file)])
    assert ecp5.main() == 1
    assert "nextpnr-ecp5 is missing" in capsys.readouterr().err
    assert not file.exists()


def test_an_unknown_unit_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown unit 'fedeer'; one of: accelerator, array"):
        ecp5._unit("fedeer", TINY)


def test_the_report_gives_the_slowest_path_of_one_clock():
    def step(delay: float, kind: str = "routing") -> dict:
        cell = {"cell": "unit.lane_3.sum_TRELLIS_FF_Q"}
        return {"delay": delay, "type": kind, "from": cell, "to": cell}

    report = {
        "fmax": {"clk": {"achieved": 57.4, "constraint": 62.5}},
        "utilization": {
            "DP16KD": {"used": 154, "available": 208}, "DCUA": {"used": 0, "available": 2},
        },
        "critical_paths": [
            {"from": "posedge clk", "to": "posedge clk", "path": [step(0.01), step(17.4)]},
            {"from": "posedge clk", "to": "<async>", "path": [step(40.0)]},
        ],
    }  # fmt: skip
    routed = read_report(report)
    assert (routed.clock_mhz, routed.utilization) == (57.4, {"DP16KD": (154, 208)})
    assert len(routed.critical_path) == 1
    assert "17.40 ns" in routed.critical_path[0]
