"""The files that a DE1-SoC gets: what can be checked of them without the board."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from espalier.runtime import de1_soc

FILES = Path(str(resources.files("espalier"))) / "boards" / "de1_soc"
BASE = """
/dts-v1/;
/ { #address-cells = <1>; #size-cells = <1>;
  intc: interrupt-controller { #interrupt-cells = <3>; interrupt-controller; };
  soc { #address-cells = <1>; #size-cells = <1>; interrupt-parent = <&intc>; ranges;
    base_fpga_region { compatible = "fpga-region"; };
    fpga_bridge0: fpga_bridge@ff400000 { reg = <0xff400000 0x100000>; status = "disabled"; };
    fpga_bridge3: fpga-bridge@ffc25080 { reg = <0xffc25080 0x4>; status = "disabled"; };
  };
};
"""
"""The nodes of Linux' socfpga.dtsi that the overlays touch."""


def call(*command: object, **environment: object) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    words = [str(word) for word in command]
    return subprocess.run(words, text=True, capture_output=True, env=variables)


def need(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def property_of(tree: Path, node: str, name: str, kind: str = "x") -> list[str]:
    result = call("fdtget", "-t", kind, tree, node, name)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_overlays_merge_into_a_tree_and_name_the_drivers_addresses(tmp_path):
    need("fdtoverlay")
    (tmp_path / "base.dts").write_text(BASE)
    for name, source in (
        ("base", tmp_path / "base.dts"),
        ("espalier", FILES / "espalier.dtso"),
        ("region", FILES / "espalier-region.dtso"),
    ):
        compiled = call("dtc", "-q", "-@", "-I", "dts", "-O", "dtb", source, "-o", tmp_path / name)
        assert compiled.returncode == 0, compiled.stderr
    tree = tmp_path / "tree.dtb"
    merged = call(
        "fdtoverlay",
        "-i",
        tmp_path / "base",
        "-o",
        tree,
        tmp_path / "espalier",
        tmp_path / "region",
    )
    assert merged.returncode == 0, merged.stderr
    window = [int(number, 16) for number in property_of(tree, "/soc/espalier@ff200000", "reg")]
    base, size = (int(number, 0) for number in de1_soc.RESERVED.split(":"))
    assert window == [de1_soc.REGISTERS_ADDRESS, 0x1000, base, size]
    reserved = property_of(tree, "/reserved-memory/espalier@3c000000", "reg")
    assert [int(number, 16) for number in reserved] == [base, size]
    names = property_of(tree, "/soc/espalier-buffer", "device-name", "s")
    assert names == [de1_soc.BUFFER_NAME]
    for bridge in ("fpga_bridge@ff400000", "fpga-bridge@ffc25080"):
        assert property_of(tree, f"/soc/{bridge}", "status", "s") == ["okay"]
    assert property_of(tree, "/soc/base_fpga_region", "firmware-name", "s") == ["espalier.rbf"]


def test_scripts_are_clean():
    script = FILES / "load_bitstream.sh"
    assert os.access(script, os.X_OK)
    for name in ("load_bitstream.sh", "boot.cmd"):
        assert call("sh", "-n", FILES / name).returncode == 0
    need("shellcheck")
    assert call("shellcheck", script).stdout == ""


def load(bitstream: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return call(
        "sh",
        FILES / "load_bitstream.sh",
        bitstream,
        BOOT=folder / "boot",
        FIRMWARE=folder / "firmware",
        CONFIGFS=folder / "config",
        ESPALIER=folder / "espalier",
    )


def test_load_script_uses_what_the_kernel_has(tmp_path):
    bitstream = tmp_path / "new.rbf"
    bitstream.write_bytes(b"bits")
    missing = load(tmp_path / "absent.rbf", tmp_path)
    assert missing.returncode == 1 and "no such file, or it is empty" in missing.stderr
    assert "neither" in load(bitstream, tmp_path).stderr
    (tmp_path / "boot").mkdir()
    assert "reboot" in load(bitstream, tmp_path).stdout
    assert (tmp_path / "boot" / "espalier.rbf").read_bytes() == b"bits"


def test_load_script_believes_what_the_kernel_answers(tmp_path):
    overlays = tmp_path / "config" / "device-tree" / "overlays"
    overlays.mkdir(parents=True)
    (tmp_path / "firmware").mkdir()
    (tmp_path / "firmware" / "espalier-region.dtbo").write_bytes(b"overlay")
    bitstream = tmp_path / "new.rbf"
    bitstream.write_bytes(b"bits")
    (tmp_path / "espalier").write_text(f"#!/bin/sh\necho $* >{tmp_path}/called\n")
    (tmp_path / "espalier").chmod(0o755)
    assert load(bitstream, tmp_path).returncode == 1  # a folder without `status` is no configfs
    assert (tmp_path / "firmware" / "espalier.rbf").read_bytes() == b"bits"
    assert (overlays / "espalier" / "dtbo").read_bytes() == b"overlay"
    assert (tmp_path / "called").read_text() == "doctor\n"  # stops what still runs


def test_the_wheel_carries_the_files():
    names = {path.name for path in FILES.iterdir()}
    assert {"espalier.dtso", "60-espalier.rules", "espalier-bitstream.service", "boot.cmd"} <= names
