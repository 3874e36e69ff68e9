"""Mapped memory on plain files: words, edges, cache commands, options; what is refused and how."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from espalier.errors import DeviceError
from espalier.runtime import fpga, uio
from espalier.runtime.de1_soc import open_de1_soc
from espalier.runtime.mapped import Buffer, Registers, open_device
from espalier.runtime.udmabuf import CachedBuffer
from espalier.spec.config import TINY

SIZE, BASE = 8192, 0x3C00_0000


def mapping(path: Path, size: int = SIZE) -> mmap.mmap:
    path.write_bytes(bytes(size))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), size)


@pytest.mark.parametrize("seed", range(3))
def test_a_buffer_is_bytes_at_any_offset(tmp_path, seed):
    random = np.random.default_rng(seed)
    buffer, expected = Buffer(mapping(tmp_path / "memory"), BASE, SIZE), bytearray(SIZE)
    for _ in range(300):
        offset = int(random.integers(0, SIZE))
        size = int(random.integers(0, min(SIZE - offset, 100) + 1))
        data = random.bytes(size)
        buffer.write(offset, memoryview(data) if seed else data)
        expected[offset : offset + size] = data
        start = max(0, offset - 5)
        assert buffer.read(start, size) == expected[start : start + size]
    assert buffer.read(0, SIZE) == expected
    for offset, size in ((-1, 1), (SIZE - 1, 2), (0, -1)):
        with pytest.raises(ValueError, match="must lie in"):
            buffer.read(offset, size)
    with pytest.raises(ValueError, match="must lie in"):
        buffer.write(SIZE, b"1")
    buffer.close()
    buffer.close()
    with pytest.raises(DeviceError, match="closed"):
        buffer.read(0, 8)


def test_a_window_is_whole_pages(tmp_path):
    for base, size in ((BASE + 16, SIZE), (BASE, 100), (BASE, 0)):
        with pytest.raises(DeviceError, match="multiples of 4096"):
            Buffer(mapping(tmp_path / "memory"), base, size)


def test_registers_are_words(tmp_path):
    registers = Registers(mapping(tmp_path / "registers", 4096))
    registers.write(0x40, -1)
    registers.write(0x44, 0x12345678)
    assert registers.read(0x40) == 0xFFFFFFFF and registers.read(0x44) == 0x12345678
    registers.close()
    assert (tmp_path / "registers").read_bytes()[0x44:0x48] == bytes.fromhex("78563412")


@pytest.fixture
def udmabuf(tmp_path) -> Path:
    folder = tmp_path / "sys/class/u-dma-buf/espalier-buffer"
    folder.mkdir(parents=True)
    values = {
        "phys_addr": "0x3c000000",
        "size": str(SIZE),
        "sync_for_cpu": "",
        "sync_for_device": "",
    }
    for name, value in values.items():
        (folder / name).write_text(value)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/espalier-buffer").write_bytes(bytes(SIZE))
    return folder


def test_the_cache_is_maintained_by_whole_lines_that_are_touched(tmp_path, udmabuf):
    buffer = CachedBuffer(tmp_path / "dev/espalier-buffer", udmabuf)
    assert (buffer.base, buffer.size) == (BASE, SIZE)
    buffer.write(70, b"12345")
    assert int((udmabuf / "sync_for_device").read_text(), 0) == 64 << 32 | 32 | 1 << 2 | 1
    assert (udmabuf / "sync_for_cpu").read_text() == ""
    assert buffer.read(4090, 10)[6:] == bytes(4)
    assert int((udmabuf / "sync_for_cpu").read_text(), 0) == 4064 << 32 | 64 | 2 << 2 | 1
    buffer.close()


def test_a_buffer_that_may_not_be_maintained_is_refused(tmp_path, udmabuf):
    (udmabuf / "sync_for_device").unlink()
    with pytest.raises(DeviceError, match=r"sync_for_device cannot be written .* udev rule"):
        CachedBuffer(tmp_path / "dev/espalier-buffer", udmabuf)
    (udmabuf / "size").write_text("much")
    with pytest.raises(DeviceError, match="cannot be read as a number"):
        CachedBuffer(tmp_path / "dev/espalier-buffer", udmabuf)


def test_files_that_cannot_be_opened_say_what_to_do(tmp_path):
    with pytest.raises(DeviceError, match="does not exist: is the device tree overlay applied"):
        open_device(tmp_path / "uio0")
    with pytest.raises(DeviceError, match="cannot be opened"):
        open_device(tmp_path)
    if os.getuid():
        (tmp_path / "mine").touch(mode=0)
        with pytest.raises(DeviceError, match="udev rule"):
            open_device(tmp_path / "mine")


def test_uio_devices_are_found_by_name(tmp_path):
    for number, name in enumerate(("other", "espalier")):
        folder = tmp_path / f"sys/class/uio/uio{number}"
        for index in range(2):
            (folder / f"maps/map{index}").mkdir(parents=True)
            (folder / f"maps/map{index}/addr").write_text(f"{0xFF200000 + index:#x}\n")
            (folder / f"maps/map{index}/size").write_text("0x1000\n")
        (folder / "name").write_text(f"{name}\n")
    found = uio.find(tmp_path, "espalier")
    assert found.device == tmp_path / "dev/uio1" and len(found.maps) == 2
    assert found.maps[1] == uio.Map(0xFF200001, 0x1000)
    with pytest.raises(DeviceError, match=r"no UIO device 'x' \(there are: other, espalier\)"):
        uio.find(tmp_path, "x")


def test_the_kernels_memory_is_known(tmp_path):
    assert fpga.system_memory(tmp_path, 0, 4096) == ""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/iomem").write_text(
        "00000000-3bffffff : System RAM\n  00008000-00ffffff : Kernel code\nff706000-ff706fff : x\n"
    )
    assert fpga.system_memory(tmp_path, 0x3BFFF000, 4096) == "00000000-3bffffff"
    assert fpga.system_memory(tmp_path, 0x3C000000, 4096) == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_bytes": 100}, "window_bytes must be a positive multiple of 4096, not 100"),
        ({"window_bytes": 0}, "window_bytes"),
        ({"buffer": "12:zz"}, "buffer must be auto, uio, the name of a u-dma-buf device"),
        ({"uio": "none", "buffer": "uio"}, "buffer must not be uio where uio is none"),
    ],
)
def test_impossible_options_are_refused_at_once(options, message):
    with pytest.raises(DeviceError, match=message):
        open_de1_soc(**options)


def test_a_pc_is_not_touched(tmp_path):
    with pytest.raises(DeviceError, match="board is not one with a device tree: de1-soc is for"):
        open_de1_soc(root=str(tmp_path))(TINY)
