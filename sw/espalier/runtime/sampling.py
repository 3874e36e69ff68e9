"""How the next token is chosen from logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import CapacityError, InputError

Chooser = Callable[[np.ndarray], int]


def chooser(temperature: float, top_k: int | None, seed: int) -> Chooser:
    """Takes logits [vocabulary] and gives a token; equal seeds give equal choices.

    Raises InputError for a temperature below 0 or a top_k below 1.
    """
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature must be 0 or positive, not {temperature}")
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise InputError(f"top_k must be a positive integer or None, not {top_k!r}")
    if temperature == 0:
        return lambda logits: int(logits.argmax())
    random = np.random.default_rng(seed)

    def sample(logits: np.ndarray) -> int:
        scaled = logits.astype(np.float64) / temperature
        if top_k is not None and top_k < len(scaled):
            scaled[scaled < np.sort(scaled)[-top_k]] = -np.inf
        shares = np.exp(scaled - scaled.max())
        return int(random.choice(len(shares), p=shares / shares.sum()))

    return sample


def check_room(prompt: int, new: int, most: int) -> None:
    """Raise unless `new` tokens can follow a prompt in a memory of `most` tokens: the last one is
    given without being put in."""
    if not isinstance(new, int) or new < 1:
        raise InputError(f"max_new_tokens must be a positive integer, not {new!r}")
    if prompt + new - 1 > most:
        raise CapacityError(
            f"{prompt} tokens and {new} new ones exceed the program's {most} tokens; ask for "
            "fewer, or compile with a larger max_length"
        )
