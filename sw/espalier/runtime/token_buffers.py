"""Where a token program's buffers lie in the window: after the image input, output, record and
cache, for the longest sequence."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CapacityError
from ..program import Program
from ..spec.tokens import AHEAD, TokenPlan
from .buffers import align


@dataclass(frozen=True)
class TokenBuffers:
    """Window offsets, and the registers of a run."""

    plan: TokenPlan
    input: int
    output: int
    record: int
    cache: int
    end: int

    @staticmethod
    def of(program: Program, window_bytes: int) -> TokenBuffers:
        """Raises CapacityError when the window is too small."""
        plan = program.tokens
        assert plan is not None
        rows = plan.most_tokens + AHEAD
        position, places = align(len(program.image)), []
        for size in (
            rows * program.inputs[0].stride_bytes,
            plan.most_tokens * program.outputs[0].stride_bytes,
            (rows + AHEAD) * plan.record_bytes,
            plan.cache_bytes,
        ):
            places.append(position)
            position = align(position + size)
        if position > window_bytes:
            raise CapacityError(
                f"{plan.most_tokens} tokens need {position} bytes with the program's image of "
                f"{len(program.image)}, the window has {window_bytes}; open a larger one or "
                "compile with a smaller max_length"
            )
        first_input, output, record, cache = places
        return TokenBuffers(
            plan, first_input, output, record + AHEAD * plan.record_bytes, cache, position
        )

    def registers(self, position: int, tokens: int) -> dict[int, int]:
        """What to write before a run of `tokens` that follow `position` tokens."""
        places = self.input, self.output, self.record, self.cache
        return self.plan.registers(position, tokens, places)
