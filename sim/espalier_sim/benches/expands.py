"""Random EXPANDs."""

from __future__ import annotations

from random import Random

from espalier.spec import checks, expansion
from espalier.spec.config import SLOTS, Config
from espalier.spec.isa import Expand, Instruction, Opcode


def draw_expand(config: Config, random: Random, words: int) -> dict[str, int]:
    """Fields of an EXPAND whose weights lie in the first `words` words of every array; registers
    and offset are 0."""
    while True:
        fields = {
            "kind": random.choice(list(Expand)),
            "most": random.choice([random.randint(1, 12), random.randint(1, 4 * config.lanes + 3)]),
            "heads": random.randint(1, 4),
            "groups": random.randint(1, 9),
            "register": 0,
            "offset": 0,
            "tokens": 0,
            "gap": random.choice([0, 0, 1, random.randint(2, 70)]),
        }
        taken = expansion.words(fields, config, fields["most"])
        height = expansion.height(fields, config, fields["most"])
        most_slots = SLOTS // (2 * fields["heads"])
        if taken > words or height > most_slots:
            continue
        fields["slots"] = random.randint(height, most_slots)
        fields["slot"] = random.randint(0, SLOTS - 2 * fields["heads"] * fields["slots"])
        fields["address"] = random.randint(0, words - taken)
        checks.check(Instruction(Opcode.EXPAND, fields), config)
        return fields
