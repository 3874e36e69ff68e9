"""Every exception that Espalier raises on purpose; all derive from `EspalierError`."""


class EspalierError(Exception):
    """Base of all errors below: the message says the rule, the value and what to do."""


class RecipeError(EspalierError, ValueError):
    """A compression recipe asks for something impossible."""


class UnsupportedModelError(EspalierError):
    """The model uses operators or shapes that cannot be compiled; the message lists all of them."""


class CapacityError(EspalierError):
    """A size does not fit the accelerator's configuration, its accumulators or the opened
    window."""


class ProgramError(EspalierError, ValueError):
    """A program file is damaged, of another version or for another configuration."""


class InputError(EspalierError, ValueError):
    """An input has the wrong shape, type or values."""


class DeviceError(EspalierError):
    """A device cannot be opened, or does not answer."""


class FaultError(DeviceError):
    """The machine stopped on a fault; `cause`, `pc` and `address` say where."""

    def __init__(self, message: str, *, cause: int, pc: int, address: int):
        super().__init__(message)
        self.cause, self.pc, self.address = cause, pc, address
