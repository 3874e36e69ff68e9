"""`python -m espalier_sim.board --config TINY espalier doctor --option root={root}`: run a host
program beside a simulated board; `{root}` in its arguments becomes the board's folder."""

from __future__ import annotations

import argparse
import subprocess
import sys

from espalier.errors import EspalierError
from espalier.spec.config import PRESETS, preset

from .process import Board


def main() -> int:
    """Exit status of the program, or 1 when the board broke a rule."""
    parser = argparse.ArgumentParser(prog="python -m espalier_sim.board", description=__doc__)
    parser.add_argument("--config", default="TINY", choices=PRESETS, help="sizes")
    parser.add_argument("--window-bytes", type=lambda text: int(text, 0), default=1 << 20)
    parser.add_argument("--seed", type=int, default=0, help="of stalls and latencies")
    parser.add_argument("--stall", type=float, default=0.0, help="probability of a pause")
    parser.add_argument("--latency", type=int, default=24, help="of the memory, in cycles")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the host program")
    options = vars(parser.parse_args())
    command, config = options.pop("command"), preset(options.pop("config"))
    try:
        with Board(config, **options) as board:
            words = [word.replace("{root}", str(board.root)) for word in command]
            status = subprocess.run(words, env=board.environment).returncode
            report = board.report()
    except (EspalierError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"board: {report.cycles} cycles, {report.bursts} bursts; {report.breach or 'no breach'}")
    return status or bool(report.breach)


if __name__ == "__main__":
    sys.exit(main())
