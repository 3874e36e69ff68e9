"""The performance model: cycles, operations and DDR bytes per instruction, layer and network (see
`estimate`)."""

from .estimate import CLOCK_HZ, Estimate, dense_macs, estimate, of_timeline
from .timing import Latencies, Timeline, covered, simulate
from .trace import Step, trace

__all__ = [
    "CLOCK_HZ",
    "Estimate",
    "Latencies",
    "Step",
    "Timeline",
    "covered",
    "dense_macs",
    "estimate",
    "of_timeline",
    "simulate",
    "trace",
]
