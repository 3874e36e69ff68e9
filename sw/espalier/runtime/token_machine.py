"""A token program on a machine: integers in, integers out; the cache stays from run to run."""

from __future__ import annotations

import numpy as np

from ..errors import CapacityError, InputError
from ..program import Program
from ..spec.registers import COUNTERS
from . import ports
from .driver import Driver
from .token_buffers import TokenBuffers


class TokenMachine:
    """Runs tokens through a transformer's program.

    Members
    -------
    position: tokens of the sequence so far, whose keys and values are in the cache.
    counters: events of the last run. totals: of all runs.
    """

    def __init__(self, driver: Driver, program: Program):
        self.program = program
        self.position = 0
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.totals = dict.fromkeys(COUNTERS, 0)
        self._driver = driver
        self._buffers = TokenBuffers.of(program, driver.transport.window_bytes)
        driver.start("setup")

    @property
    def most_tokens(self) -> int:
        return self._buffers.plan.most_tokens

    def restart(self) -> None:
        """Begin a new sequence."""
        self.position = 0

    def check_causal(self) -> None:
        """Raise InputError for a model whose sequences cannot be continued."""
        if not self._buffers.plan.causal:
            raise InputError(
                "every token sees all others here, a sequence cannot be continued: run it whole"
            )

    def check_room(self, tokens: int) -> None:
        """Raise CapacityError unless so many tokens more fit the program's memory."""
        if self.position + tokens > self.most_tokens:
            raise CapacityError(
                f"the program holds {self.most_tokens} tokens, not {self.position + tokens}; "
                "compile it with a larger max_length"
            )

    def run(self, values: np.ndarray) -> np.ndarray:
        """int16 [tokens, width] of the next tokens to int16 [tokens, width out].

        Raises
        ------
        CapacityError: the sequence becomes longer than the program's memory.
        InputError: no tokens, or a program that cannot continue a sequence.
        """
        tokens = len(values)
        if tokens < 1:
            raise InputError("a run needs at least one token, not none")
        if self.position:
            self.check_causal()
        self.check_room(tokens)
        (port,), (result,) = self.program.inputs, self.program.outputs
        self._driver.write(self._buffers.input, ports.encode(port, self.program.config, values))
        self.counters = self._driver.start("run", self._buffers.registers(self.position, tokens))
        for name, value in self.counters.items():
            self.totals[name] += value
        self.position += tokens
        data = self._driver.read(self._buffers.output, tokens * result.stride_bytes)
        return ports.decode(result, data.reshape(tokens, result.stride_bytes))
