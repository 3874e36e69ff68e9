"""What the driver makes of a machine that is another one, does not answer, hangs or will not
recover."""

import numpy as np
import pytest

from espalier.errors import CapacityError, DeviceError, FaultError, ProgramError
from espalier.runtime import Transport
from espalier.runtime.driver import Driver
from espalier.spec import isa
from espalier.spec.config import SMALL, TINY
from espalier.spec.registers import MAGIC, REGISTERS, Control, Fault, Status


class Machine:
    """Registers without a machine: a START ends in `after`, a wait may time out."""

    config, window_base, window_bytes = TINY, 0x10000, 1 << 16

    def __init__(self, after: Status = Status.DONE, **registers: int):
        self.registers = dict.fromkeys(REGISTERS, 0)
        self.registers.update(MAGIC=MAGIC, VERSION=isa.VERSION, IDENTITY=TINY.identity)
        self.registers.update(registers)
        self.after, self.hangs, self.commands = after, False, []

    def read_register(self, name: str) -> int:
        return self.registers[name]

    def write_register(self, name: str, value: int) -> None:
        self.registers[name] = value
        if name == "CONTROL":
            self.command(Control(value))

    def command(self, command: Control) -> None:
        self.commands.append(command)
        if command & Control.START:
            self.registers["STATUS"] = Status.BUSY if self.hangs else self.after
        if command & Control.ABORT:
            self.registers.update(STATUS=Status.FAULT, FAULT=Fault.ABORTED)
        if command & Control.CLEAR_FAULT and not self.registers["STATUS"] & Status.DRAINING:
            self.registers["STATUS"] = 0

    def read(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None: ...

    def wait(self, timeout_s: float) -> None:
        if self.registers["STATUS"] & Status.BUSY:
            raise DeviceError(f"no end after {timeout_s} s")

    def close(self) -> None: ...


def test_the_fake_is_a_transport():
    assert isinstance(Machine(), Transport)


@pytest.mark.parametrize(
    ("register", "value", "error", "message"),
    [
        ("MAGIC", 0xFFFFFFFF, DeviceError, "MAGIC must be 0x4c505345, not 0xffffffff"),
        ("VERSION", 77, ProgramError, "machine has version 77"),
        (
            "IDENTITY",
            SMALL.identity,
            ProgramError,
            f"compiled for TINY .* machine has identity {SMALL.identity:#010x}",
        ),
    ],
)
def test_another_machine_is_refused(running_sum, register, value, error, message):
    with pytest.raises(error, match=message):
        Driver(Machine(**{register: value}), running_sum)


def test_an_image_larger_than_the_window_is_refused(running_sum):
    machine = Machine()
    machine.window_bytes = 64
    with pytest.raises(CapacityError, match="image has 160 bytes, the window only 64"):
        Driver(machine, running_sum)


def test_the_window_is_opened_and_the_program_loaded_once(running_sum):
    machine = Machine(CYCLES_LOW=7, CYCLES_HIGH=1)
    driver = Driver(machine, running_sum, watchdog_cycles=500)
    counters = driver.start("setup", {3: 48})
    driver.start("run")
    assert {
        name: machine.registers[name]
        for name in ("WINDOW_BASE", "WINDOW_SIZE", "WATCHDOG", "R3", "ENTRY")
    } == {"WINDOW_BASE": 0x10000, "WINDOW_SIZE": 1 << 16, "WATCHDOG": 500, "R3": 48, "ENTRY": 3}
    assert machine.commands == [Control.START | Control.LOAD_PROGRAM, Control.START]
    assert counters["cycles"] == (1 << 32) + 7 and counters["words"] == 0


def test_a_machine_left_running_or_in_fault_is_taken_over(running_sum):
    for status in (Status.BUSY, Status.FAULT):
        machine = Machine(STATUS=status)
        machine.wait = lambda timeout_s: None
        Driver(machine, running_sum).start("setup")
        assert Control.CLEAR_FAULT in machine.commands


def test_a_run_without_end_is_aborted(running_sum):
    machine = Machine()
    driver = Driver(machine, running_sum, timeout_s=2.5)
    machine.hangs = True
    with pytest.raises(DeviceError, match=r"no end after 2\.5 s"):
        driver.start("run")
    assert machine.commands[-2:] == [Control.ABORT, Control.CLEAR_FAULT]
    machine.hangs = False
    driver.start("run")
    assert machine.commands[-1] == Control.START | Control.LOAD_PROGRAM


def test_a_fault_is_reported_even_when_it_cannot_be_cleared(running_sum):
    machine = Machine(Status.FAULT | Status.DRAINING, FAULT=Fault.WATCHDOG, FAULT_PC=4)
    driver = Driver(machine, running_sum)
    with pytest.raises(
        FaultError, match=r"watchdog in 'run' at instruction 4 \(LOAD .*never end.*stalled"
    ) as caught:
        driver.start("run")
    assert (caught.value.cause, caught.value.pc) == (Fault.WATCHDOG, 4)


def test_an_end_without_done_is_no_success(running_sum):
    with pytest.raises(DeviceError, match="idle without being done"):
        Driver(Machine(Status(0)), running_sum).start("run")


def test_reads_are_bytes(running_sum):
    assert Driver(Machine(), running_sum).read(0, 8).dtype == np.uint8
