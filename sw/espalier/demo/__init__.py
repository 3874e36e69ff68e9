"""The demo: a GRU that reads handwritten digits, from float PyTorch to the simulated accelerator.

`data` the digits · `model` the GRU · `train` float training and compression · `machine` runs on the
reference, on the RTL and in the performance model · `cpu` latency of PyTorch and ONNX Runtime ·
`report` table, report.json and plot. Needs `espalier[demo]` and `espalier[sim]`.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import EspalierError


def main(folder: Path = Path("build/demo")) -> None:
    """Run the demo, print its table and write report.json and a plot into `folder`.

    Raises EspalierError when a package of the demo is missing.
    """
    try:
        from .run import run
    except ImportError as error:
        raise EspalierError(
            f"the demo needs {error.name}: pip install 'espalier[torch,demo,sim]'"
        ) from error
    run(folder)
