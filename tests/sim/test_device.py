"""The simulated device: random programs against the reference, faults, and its own checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from espalier.errors import DeviceError
from espalier.runtime.transport import Transport
from espalier.spec import registers
from espalier.spec.config import TINY
from espalier.spec.registers import COUNTERS, Control, Fault, Status
from espalier_hw.accelerator import Accelerator
from espalier_hw.verilog import for_ecp5
from espalier_sim.benches.programs import WINDOW_BYTES, Program, draw
from espalier_sim.reference.machine import Machine
from espalier_sim.verilator import build
from espalier_sim.verilator.device import RtlTransport, open_rtl

HARDWARE_ONLY = ("cycles", "product_cycles")
TIMEOUT_S = 60.0


def opened(seed: int = 0, stall: float = 0.0, latency: int = 24) -> RtlTransport:
    options = {"seed": seed, "stall": stall, "latency": latency, "window_bytes": WINDOW_BYTES}
    return open_rtl(**options)(TINY)


def opened_ecp5(library: Path, seed: int) -> RtlTransport:
    return RtlTransport(TINY, library, seed=seed, stall=0.1, latency=10, window_bytes=WINDOW_BYTES)


def start(device: RtlTransport, program: Program, **settings: int) -> None:
    device.write(0, program.image)
    values = {
        "WINDOW_BASE": device.window_base,
        "WINDOW_SIZE": device.window_bytes,
        "ENTRY": 0,
        "PROGRAM_LENGTH": program.length,
        "WATCHDOG": 10_000,
        **settings,
    }
    for name, value in values.items():
        device.write_register(name, value)
    device.write_register("CONTROL", Control.START | Control.LOAD_PROGRAM)


def run(device: RtlTransport, program: Program) -> int:
    """Cycles that the hardware counted."""
    start(device, program)
    device.wait(TIMEOUT_S)
    assert device.read_register("STATUS") == Status.DONE and device.interrupt == 1
    return device.read_register("CYCLES_LOW")


def counters(device: RtlTransport) -> dict[str, int]:
    names = [name for name in COUNTERS if name not in HARDWARE_ONLY]
    return {
        name: device.read_register(f"{name.upper()}_LOW")
        | device.read_register(f"{name.upper()}_HIGH") << 32
        for name in names
    }


def reference(program: Program) -> Machine:
    machine = Machine(TINY, bytearray(program.image))
    machine.start()
    machine.load_program(program.length)
    machine.run(0, program.length)
    return machine


def test_no_word_counts_that_block_ram_reads_and_writes_at_once() -> None:
    """As an ECP5 has it (its multipliers and distributed memory, too): such words are rubbish."""
    library = build.library(for_ecp5(Accelerator(TINY)), "TINY for ECP5")
    for seed in range(200, 240):
        program = draw(TINY, seed)
        machine, device = reference(program), opened_ecp5(library, seed)
        run(device, program)
        assert device.read(0, WINDOW_BYTES) == machine.window, f"seed {seed}"


@pytest.mark.parametrize(("stall", "latency"), [(0.0, 24), (0.0, 0), (0.3, 10), (0.8, 100)])
@pytest.mark.parametrize("first", [0, 100])
def test_random_programs_equal_the_reference(first: int, stall: float, latency: int) -> None:
    for seed in range(first, first + 25):
        program = draw(TINY, seed)
        machine, device = reference(program), opened(seed, stall, latency)
        run(device, program)
        assert device.written() == machine.written, f"seed {seed}"
        assert device.read(0, WINDOW_BYTES) == machine.window, f"seed {seed}"
        expected = {n: v for n, v in machine.counters.items() if n not in HARDWARE_ONLY}
        assert counters(device) == expected, f"seed {seed}"
        state = [device.read_register(f"R{index}") for index in range(16)]
        assert state == machine.registers, f"seed {seed}"
        device.close()


def test_equal_seeds_give_equal_runs_and_stalls_cost_cycles() -> None:
    program = draw(TINY, 5)
    first, again, other = (run(opened(seed, 0.5), program) for seed in (1, 1, 2))
    assert first == again != other
    assert run(opened(0, 0.0), program) < first


def test_is_a_transport() -> None:
    device = opened()
    assert isinstance(device, Transport)
    assert device.read_register("MAGIC") == registers.MAGIC
    assert device.read_register("IDENTITY") == TINY.identity
    device.write(WINDOW_BYTES - 4, b"\1\2\3\4")
    assert device.read(WINDOW_BYTES - 5, 5) == b"\0\1\2\3\4"
    for offset, size in ((-1, 1), (WINDOW_BYTES - 1, 2), (0, -1)):
        with pytest.raises(ValueError, match="must lie in"):
            device.read(offset, size)
    with pytest.raises(ValueError, match="must lie in"):
        device.write(WINDOW_BYTES, b"1")
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.read_register("MAGIC")


def test_two_devices_share_nothing() -> None:
    left, right = opened(1), opened(2)
    left.write(0, b"left")
    run(right, draw(TINY, 1))
    assert left.read(0, 4) == b"left"
    assert left.read_register("STATUS") == 0 and not left.written()


@pytest.mark.parametrize(
    "options",
    [{"stall": 1.0}, {"stall": -0.1}, {"latency": -1}, {"window_bytes": 100}, {"window_bytes": 0}],
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(DeviceError, match=next(iter(options))):
        open_rtl(**options)


def test_bus_error_is_a_fault_and_can_be_cleared() -> None:
    device, program = opened(3, 0.3), draw(TINY, 3)
    device.fail_at(0x2010)
    start(device, program)
    device.wait(TIMEOUT_S)
    assert device.read_register("STATUS") & Status.FAULT
    assert device.read_register("FAULT") == Fault.BUS_ERROR
    device.fail_at(None)
    while device.read_register("STATUS") & Status.DRAINING:
        pass
    device.write_register("CONTROL", Control.CLEAR_FAULT)
    run(device, program)
    assert device.written() == reference(program).written


def test_write_error_is_a_fault() -> None:
    program = draw(TINY, 3)
    device = opened()
    device.fail_at(reference(program).written[0][0])
    start(device, program)
    device.wait(TIMEOUT_S)
    assert device.read_register("FAULT") == Fault.BUS_ERROR


def test_hanging_memory_ends_by_watchdog_or_timeout() -> None:
    device, program = opened(), draw(TINY, 3)
    device.hang_after(300)
    start(device, program, WATCHDOG=1000)
    device.wait(TIMEOUT_S)
    assert device.read_register("FAULT") == Fault.WATCHDOG
    device = opened()
    device.hang_after(300)
    start(device, program, WATCHDOG=0)
    with pytest.raises(DeviceError, match="still busy"):
        device.wait(0.1)


MISBEHAVING = """
// Answers every register access; a write of R3 sends what R0 (address), R1 (length - 1) and
// R2 (kind: 0 read, 1 write, 2 an address that changes before it is taken) say.
module top(input clk, rst,
  input csr__awvalid, output csr__awready, input [11:0] csr__awaddr,
  input csr__wvalid, output csr__wready, input [31:0] csr__wdata, input [3:0] csr__wstrb,
  output reg csr__bvalid, input csr__bready, output [1:0] csr__bresp,
  input csr__arvalid, output csr__arready, input [11:0] csr__araddr,
  output reg csr__rvalid, input csr__rready, output [31:0] csr__rdata, output [1:0] csr__rresp,
  output reg axi__arvalid, input axi__arready, output [31:0] axi__araddr, output [7:0] axi__arlen,
  output [2:0] axi__arsize, output [1:0] axi__arburst,
  input axi__rvalid, output axi__rready, input [127:0] axi__rdata, input [1:0] axi__rresp,
  input axi__rlast,
  output reg axi__awvalid, input axi__awready, output [31:0] axi__awaddr, output [7:0] axi__awlen,
  output [2:0] axi__awsize, output [1:0] axi__awburst,
  output reg axi__wvalid, input axi__wready, output [127:0] axi__wdata, output [15:0] axi__wstrb,
  output axi__wlast, input axi__bvalid, output axi__bready, input [1:0] axi__bresp,
  output interrupt);
  reg [31:0] r [0:3];
  reg [31:0] drift;
  wire write = csr__awvalid & csr__wvalid & ~csr__bvalid;
  assign {csr__awready, csr__wready, csr__arready} = {write, write, ~csr__rvalid};
  assign {csr__bresp, csr__rresp, csr__rdata, interrupt} = 0;
  assign axi__araddr = r[0] + drift;
  assign {axi__arlen, axi__arsize, axi__arburst} = {r[1][7:0], 3'd4, 2'd1};
  assign {axi__awaddr, axi__awlen, axi__awsize, axi__awburst} = {r[0], r[1][7:0], 3'd4, 2'd1};
  assign {axi__wdata, axi__wstrb, axi__wlast} = {128'd7, 16'hffff, 1'b1};
  assign {axi__rready, axi__bready} = 2'b11;
  always @(posedge clk) begin
    csr__bvalid <= write | (csr__bvalid & ~csr__bready);
    csr__rvalid <= (csr__arvalid & ~csr__rvalid) | (csr__rvalid & ~csr__rready);
    if (axi__arready) axi__arvalid <= 0;
    if (axi__awready) axi__awvalid <= 0;
    if (axi__wready) axi__wvalid <= 0;
    drift <= r[2] == 2 ? drift + 16 : 0;
    if (write) begin
      r[csr__awaddr[3:2]] <= csr__wdata;
      if (csr__awaddr[3:2] == 3) begin
        axi__arvalid <= r[2] != 1; axi__awvalid <= r[2] == 1; axi__wvalid <= r[2] == 1;
      end
    end
    if (rst) begin
      csr__bvalid <= 0; csr__rvalid <= 0; axi__arvalid <= 0; axi__awvalid <= 0; axi__wvalid <= 0;
    end
  end
endmodule
"""


@pytest.fixture(scope="module")
def misbehaving() -> Path:
    return build.library(MISBEHAVING, "a misbehaving master")


@pytest.mark.parametrize(
    ("offset", "beats", "kind", "message"),
    [
        (0x100, 16, 0, None),
        (0x100, 1, 1, None),
        (0x108, 1, 0, "inside a beat"),
        (0x100, 17, 0, "longer than 16"),
        (0xFF0, 2, 0, "crosses a page"),
        (WINDOW_BYTES, 1, 0, "read burst leaves the window"),
        (WINDOW_BYTES, 1, 1, "write burst leaves the window"),
        (-16, 1, 1, "write burst leaves the window"),
        (0x100, 2, 1, "WLAST"),
        (0x100, 1, 2, "AR changed"),
    ],
)
def test_memory_model_sees_every_breach(
    misbehaving: Path, offset: int, beats: int, kind: int, message: str | None
) -> None:
    stall = 0.9 if kind == 2 else 0.0
    device = RtlTransport(TINY, misbehaving, seed=4, stall=stall, window_bytes=WINDOW_BYTES)
    values = {"R0": device.window_base + offset, "R1": beats - 1, "R2": kind, "R3": 1}
    for name, value in values.items():
        device.write_register(name, value)
    for _ in range(40):
        device.read_register("STATUS")
    if message is None:
        device.wait(TIMEOUT_S)
    else:
        with pytest.raises(DeviceError, match=message):
            device.wait(TIMEOUT_S)
