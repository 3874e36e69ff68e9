"""Sessions with a transformer: whole sequences, or one that grows token by token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..errors import DeviceError, InputError
from ..program import Program
from ..tokens import host
from ..tokens.host_file import Host
from . import ports, sampling
from .driver import Driver
from .token_machine import TokenMachine

Result = np.ndarray | tuple[np.ndarray, ...]


class TokenSession:
    """A transformer's program on a machine.

    `run` takes the model's own inputs, batches and masks included, sample after sample. `extend`
    and `generate` continue one sequence: keys and values of its tokens stay in the machine's
    memory, and what they give equals what `run` gives for the whole sequence, bit for bit.

    Members
    -------
    counters: events (`spec.registers.COUNTERS`) of the last call, summed over its runs.
    position: tokens of the sequence that `extend` continues.
    """

    def __init__(self, driver: Driver, program: Program):
        self.program = program
        self._machine = TokenMachine(driver, program)
        self.counters = dict(self._machine.totals)
        self._lost = ""

    @property
    def position(self) -> int:
        return self._machine.position

    @property
    def totals(self) -> dict[str, int]:
        """Events of all runs."""
        return self._machine.totals

    def detach(self, reason: str) -> None:
        """The machine is lost; every later call raises DeviceError with this reason."""
        self._lost = reason

    def run(self, *args: Any, **kwargs: Any) -> Result:
        """The model's outputs (float32; one array, or a tuple in its order) of whole sequences.

        Inputs are given in the model's order or by name: token indices (integers) or features
        (floating point), and a mask where the model takes one. Results of padding are 0.

        Raises
        ------
        InputError: wrong names, shapes, types or values, a mask that is not padding on the right.
        CapacityError: a sequence of more tokens than the program's memory holds.
        FaultError: the machine stopped.
        """
        self._begin()
        part = self._host()
        results: dict[str, list[np.ndarray]] = {name: [] for name in part.outputs}
        for sample in host.samples(part.input, self._arrays(args, kwargs)):
            self._machine.restart()
            real = self._forward(sample)
            for name, output in part.outputs.items():
                results[name].append(host.finish(output, real))
        stacked = tuple(host.stack(part.outputs[name], each) for name, each in results.items())
        return stacked[0] if len(stacked) == 1 else stacked

    def run_integers(self, values: np.ndarray) -> np.ndarray:
        """int16 [tokens, width] of one embedded sequence to the machine's own int16 output."""
        self._begin()
        self._machine.restart()
        array = np.asarray(values)
        width = len(self.program.inputs[0].positions)
        if array.ndim != 2 or array.shape[1] != width or not np.issubdtype(array.dtype, np.integer):
            raise InputError(
                f"values must be integers [tokens, {width}], not {array.dtype} {array.shape}"
            )
        return self._advance(array)

    def restart(self) -> None:
        """Begin a new sequence for `extend`."""
        self._machine.restart()

    def extend(self, tokens: Any) -> np.ndarray:
        """Continue the sequence by tokens: indices [n], or features [n, width]. Returns the output
        of these tokens, float32 [n, width out].

        Raises as `run` does; InputError also for a model whose tokens see later ones.
        """
        self._begin()
        self._machine.check_causal()
        part = self._host().input
        names = [name for name in part.inputs if name != part.mask]
        if len(names) != 1:
            raise InputError(f"extend serves models of one input, not of {names}: use run")
        sample = {names[0]: self._sequence(part, names[0], tokens)}
        return self._forward(sample)

    def generate(
        self,
        tokens: Any,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 0,
        stop: Iterable[int] = (),
    ) -> Iterator[int]:
        """New tokens after the given ones, each as it comes.

        Parameters
        ----------
        tokens: indices [n] of the prompt, at least one.
        temperature: 0 takes the likeliest token, else logits are divided by it and sampled.
        top_k: sample among so many likeliest tokens.
        stop: tokens that end the text; they are given as the last one.

        Raises
        ------
        InputError: wrong arguments. CapacityError: prompt and new tokens exceed the program's
            memory (known before anything runs).
        """
        choose = sampling.chooser(temperature, top_k, seed)
        prompt = np.asarray(tokens)
        if prompt.ndim != 1 or len(prompt) == 0:
            raise InputError(f"a prompt must be indices [n], at least one, not {prompt.shape}")
        sampling.check_room(len(prompt), max_new_tokens, self._machine.most_tokens)
        return self._generated(prompt, max_new_tokens, choose, frozenset(int(s) for s in stop))

    def _generated(
        self, prompt: np.ndarray, count: int, choose: sampling.Chooser, stop: frozenset[int]
    ) -> Iterator[int]:
        self.restart()
        logits = self.extend(prompt)[-1]
        for left in range(count, 0, -1):
            token = choose(logits)
            yield token
            if token in stop or left == 1:
                return
            logits = self.extend(np.array([token]))[-1]

    # Within

    def _begin(self) -> None:
        if self._lost:
            raise DeviceError(f"this session has lost its machine: {self._lost}")
        self.counters = dict.fromkeys(self.counters, 0)

    def _host(self) -> Host:
        if self.program.host is None:
            raise InputError(
                "this program says nothing of the host's part, it takes integers: use run_integers"
            )
        return self.program.host

    def _arrays(self, args: tuple, kwargs: dict[str, Any]) -> dict[str, np.ndarray]:
        names = self._host().input.inputs
        if len(args) > len(names):
            raise InputError(f"takes at most {len(names)} inputs ({', '.join(names)})")
        given = dict(zip(names, args, strict=False))
        twice = sorted(given.keys() & kwargs.keys())
        if twice:
            raise InputError(f"inputs {twice} are given twice, by position and by name")
        return {
            name: ports.as_array(value, name)
            for name, value in {**given, **kwargs}.items()
            if value is not None
        }

    def _sequence(self, part: host.HostInput, name: str, tokens: Any) -> np.ndarray:
        array = ports.as_array(tokens, name)
        dimensions = 2 if name == part.given else 1
        if array.ndim != dimensions or len(array) == 0:
            raise InputError(
                f"{name} must be {'[n, width]' if dimensions == 2 else '[n]'} of at least one "
                f"token, not {list(array.shape)}"
            )
        return array

    def _forward(self, sample: dict[str, np.ndarray]) -> np.ndarray:
        """Real output of the next tokens."""
        self._machine.check_room(len(next(iter(sample.values()))))
        part = self._host().input
        values = host.to_integers(part, host.embed(part, sample, self.position))
        return ports.dequantize(self.program.outputs[0], self._advance(values))

    def _advance(self, values: np.ndarray) -> np.ndarray:
        result = self._machine.run(values)
        for name, value in self._machine.counters.items():
            self.counters[name] += value
        return result
