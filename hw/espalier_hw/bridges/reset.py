"""Reset that lets the memory port finish first."""

from amaranth.hdl import *
from amaranth.lib.wiring import Component, In, Out

RESET_CYCLES = 16


class DrainedReset(Component):
    """Turns `request` (asynchronous events, synchronised) into `hold`, then `reset`.

    RUN --request--> DRAIN (`hold`, until `drained` or `patience` cycles: a port that was itself
    reset never answers) -> RESET (`hold` and `reset`, at least 16 cycles and until the request is
    gone) -> RUN. Power-up begins in RESET, so that no command reaches the port before the first
    reset has ended. Its own registers have no reset.

    Parameters
    ----------
    patience: cycles that draining may take. 16 bursts of 16 beats each way are 512 cycles on an
        idle port; 4096 leave the other masters of the DDR eight times that.
    """

    request: In(1)
    drained: In(1)
    hold: Out(1, init=1)
    reset: Out(1, init=1)

    def __init__(self, patience: int = 4096):
        self._patience = patience
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(range(max(self._patience, RESET_CYCLES) + 1), init=RESET_CYCLES)
        m.d.sync += left.eq(left - (left != 0))
        with m.FSM(init="RESET"):
            with m.State("RESET"):
                with m.If(self.request):
                    m.d.sync += left.eq(RESET_CYCLES)
                with m.Elif(left == 0):
                    m.d.sync += [self.hold.eq(0), self.reset.eq(0)]
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(self.request):
                    m.d.sync += [self.hold.eq(1), left.eq(self._patience)]
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                # `drained` is looked at a cycle after `hold` has reached the port at the earliest
                with m.If((self.drained & (left < self._patience - 2)) | (left == 0)):
                    m.d.sync += [self.reset.eq(1), left.eq(RESET_CYCLES)]
                    m.next = "RESET"
        return m
