"""Run programs on devices. NumPy only, so that it installs on the board.

    with espalier.open("reference") as device:
        session = device.load("model.espalier")
        y = session.run(x)

`device` finds devices and opens them · `driver` registers, starts, faults · `buffers` where inputs
and outputs lie in the window · `ports` the host operators · `session` the user's calls ·
`transport` what a device has to offer.
"""

from .device import Device, open, options_of
from .session import Session
from .transport import Opener, Transport

__all__ = ["Device", "Opener", "Session", "Transport", "open", "options_of"]
