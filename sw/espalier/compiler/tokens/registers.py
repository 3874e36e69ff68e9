"""Sequencer registers of a token program. The host sets R0 to R10 before a run (`spec.tokens`); the
others are the program's own."""

from ...spec.tokens import Register
from ..emit import ZERO_REGISTER

IMAGE = 11
"""Walks through the data of all passes."""
CURSOR = 12
"""The current token's record."""
PLACE = 13
"""The current token's row of a cache or tile; in attention, the tokens that it may see."""
TILE = int(Register.INPUT)
"""The current tile's first row: free once the input has been read."""
SPARE = ZERO_REGISTER - 1
"""An address or a bound for the instruction that follows."""
