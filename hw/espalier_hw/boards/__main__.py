"""`python -m espalier_hw.boards --board de1_soc ...`: the bitstream of a board, or what is missing
for it. Further options belong to the board; `--help` behind its name lists them."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

BOARDS = {
    "de1_soc": "de1_soc_build",
    "ulx3s": "ulx3s_build",
}
"""Modules here with `main(arguments) -> exit status`."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m espalier_hw.boards", description=__doc__, add_help=len(sys.argv) < 3
    )
    parser.add_argument("--board", default="de1_soc", choices=BOARDS)
    chosen, rest = parser.parse_known_args()
    return import_module(f".{BOARDS[chosen.board]}", __package__).main(rest)


if __name__ == "__main__":
    sys.exit(main())
