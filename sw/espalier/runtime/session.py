"""Sessions: what a user calls. Whole sequences, batches of them, or one time step after the
other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import CapacityError, DeviceError, InputError
from ..program import Program
from ..spec.interface import Port
from ..spec.registers import COUNTERS
from . import ports, tensors
from .buffers import Buffers, most_steps, plan
from .driver import Driver
from .tensors import Convert, Lengths, Result, Tensors


class Session:
    """A program on a machine: weights are loaded, state stays on the chip between calls.

    `run` takes whole sequences in the model's own shapes and starts from the zero (or given) state;
    `step` continues where the last call ended, `reset` clears. A sequence cut into calls in any way
    gives what one call gives, bit for bit, at every delta threshold.

    Members
    -------
    counters: events (`spec.registers.COUNTERS`) of the last `run` or `step`, summed over batch and
        chunks; clearing the state beforehand is not part of them.
    totals: events since the program was loaded, by entry: `setup` (weights, tables), `reset`,
        `run`.
    most_steps: time steps that fit the window at once; longer sequences are cut without anybody
        noticing.
    """

    def __init__(self, driver: Driver, program: Program):
        self.program = program
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.totals = {entry: dict.fromkeys(COUNTERS, 0) for entry in program.entries}
        self.most_steps = most_steps(program, driver.transport.window_bytes)
        self._driver = driver
        self._timed = [port for port in program.inputs if port.time_axis is not None]
        self._once = [port for port in program.inputs if port.time_axis is None]
        self._lost = ""
        self._ready = False
        self._obstacle = ""
        self._prepare()
        if all(port.optional for port in self._once):
            self._clear({}, 0)
        else:
            names = [port.name for port in self._once]
            self._obstacle = f"the inputs {names} were never given; call reset or run"

    def detach(self, reason: str) -> None:
        """The machine is lost; every later call raises DeviceError with this reason."""
        self._lost = reason

    def run(self, *inputs: Any, lengths: Lengths = None) -> Result:
        """The model's outputs (float32; one array, or a tuple) of whole sequences, from the zero or
        given state.

        Parameters
        ----------
        inputs: floating-point arrays (or anything with `__array__` or `__dlpack__`) in the model's
            order and shapes; optional ones (initial states) may be None or left out.
        lengths: time steps of each sample of a ragged batch; outputs beyond a sample's length are
            0.

        Raises
        ------
        InputError: wrong number, shape, type or value; the message names what is expected and what
            was given.
        CapacityError: a program that needs whole sequences got one that does not fit the window.
        FaultError: the machine stopped; the session loads its weights again at the next `run`.
        """
        outputs = self._run(inputs, lengths, ports.quantize)
        return tensors.to_user(self.program.outputs, outputs, real=True)

    def run_integers(self, *inputs: Any, lengths: Lengths = None) -> Result:
        """`run` from quantized inputs (integers) to the machine's own outputs (int16), for
        bit-exact comparison."""
        outputs = self._run(inputs, lengths, ports.check_integers)
        return tensors.to_user(self.program.outputs, outputs, real=False)

    def step(self, *inputs: Any) -> Result:
        """Continue one sample by one time step, or by several.

        Takes the inputs that have a time axis, with it (any number of steps) or without it (one
        step; outputs then have none either). The batch, where the model has one, is 1. Raises as
        `run` does.
        """
        self._check_attached()
        if self.program.whole_sequence:
            raise InputError(
                "this program needs whole sequences (it reads them backwards as well): use run"
            )
        values, bare = tensors.add_time(self._timed, inputs)
        given = tensors.gather(self._timed, values, ports.quantize)
        samples, steps = tensors.extent(self._timed, given)
        if samples != 1:
            raise InputError(
                f"step continues one sample, not a batch of {samples}: use run, or one device each"
            )
        if self._obstacle:
            raise InputError(f"there is no state to continue: {self._obstacle}")
        self.counters = dict.fromkeys(COUNTERS, 0)
        outputs = self._advance(given, 0, steps)
        return tensors.to_user(self.program.outputs, outputs, real=True, drop_time=bare)

    def reset(self, *states: Any) -> None:
        """Clear the state: to zero, or to given values of the inputs without a time axis (batch
        1)."""
        self._check_attached()
        given = tensors.gather(self._once, states, ports.quantize)
        samples, _ = tensors.extent(self._once, given)
        if samples != 1:
            raise InputError(
                f"reset takes the state of one sample, not a batch of {samples}: use run"
            )
        self._prepare()
        self._clear(given, 0)

    def _run(self, inputs: Sequence[Any], lengths: Lengths, convert: Convert) -> list[np.ndarray]:
        """Outputs as integers [batch, time, features]."""
        self._check_attached()
        given = tensors.gather(self.program.inputs, inputs, convert)
        samples, steps = tensors.extent(self.program.inputs, given)
        limits = tensors.check_lengths(lengths, samples, steps)
        self._check_whole(max(limits))
        given = tensors.spread(given, samples)
        self._prepare()
        self.counters = dict.fromkeys(COUNTERS, 0)
        outputs = [
            np.zeros(
                (samples, 1 if port.time_axis is None else steps, len(port.positions)), np.int16
            )
            for port in self.program.outputs
        ]
        for sample, limit in enumerate(limits):
            self._clear(given, sample)
            for whole, part in zip(outputs, self._advance(given, sample, limit), strict=True):
                whole[sample, : part.shape[1]] = part[0]
        if samples > 1:
            self._obstacle = "the last run had several samples; call reset, or run with one"
        return outputs

    def _check_attached(self) -> None:
        if self._lost:
            raise DeviceError(f"this session has lost its machine: {self._lost}")

    def _check_whole(self, steps: int) -> None:
        if self.program.whole_sequence and steps > self.most_steps:
            raise CapacityError(
                f"this program needs whole sequences: {steps} time steps take "
                f"{plan(self.program, steps).end} bytes, the window has "
                f"{self._driver.transport.window_bytes} ({self.most_steps} steps)"
            )

    def _prepare(self) -> None:
        """Weights and tables onto the chip, unless they are there."""
        if not self._ready:
            self._start("setup", plan(self.program, 1))
            self._ready = True

    def _clear(self, given: Tensors, sample: int) -> None:
        """Zero the state, with the inputs without a time axis (zeros when absent) where the program
        finds them."""
        buffers = plan(self.program, 1)
        for port in self._once:
            zeros = np.zeros((1, len(port.positions)), np.int64)
            self._write(buffers, port, given[port.name][sample] if port.name in given else zeros)
        self._start("reset", buffers)
        self._obstacle = ""

    def _advance(self, given: Tensors, sample: int, steps: int) -> list[np.ndarray]:
        """Run from the state on the chip, in chunks that fit the window; outputs [1, time,
        features]."""
        size = self.most_steps
        parts = [
            self._chunk(given, sample, at, min(size, steps - at)) for at in range(0, steps, size)
        ]
        return [
            pieces[-1] if port.time_axis is None else np.concatenate(pieces, axis=1)
            for port, pieces in zip(self.program.outputs, zip(*parts, strict=True), strict=True)
        ]

    def _chunk(self, given: Tensors, sample: int, first: int, steps: int) -> list[np.ndarray]:
        buffers = plan(self.program, steps)
        for port in self._timed:
            self._write(buffers, port, given[port.name][sample, first : first + steps])
        self._start("run", buffers)
        return [self._read(buffers, port, steps) for port in self.program.outputs]

    def _write(self, buffers: Buffers, port: Port, features: np.ndarray) -> None:
        self._driver.write(
            buffers.offsets[port.name], ports.encode(port, self.program.config, features)
        )

    def _read(self, buffers: Buffers, port: Port, steps: int) -> np.ndarray:
        times = 1 if port.time_axis is None else steps
        data = self._driver.read(buffers.offsets[port.name], times * port.stride_bytes)
        return ports.decode(port, data.reshape(times, port.stride_bytes))[np.newaxis]

    def _start(self, entry: str, buffers: Buffers) -> None:
        """Run one entry and count its events; when it fails, weights and state are gone."""
        try:
            events = self._driver.start(entry, buffers.registers)
        except BaseException:
            self._ready, self._obstacle = False, "the last run failed; call reset or run"
            raise
        for name, value in events.items():
            self.totals[entry][name] += value
            if entry == "run":
                self.counters[name] += value
