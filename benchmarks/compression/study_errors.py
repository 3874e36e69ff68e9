"""What goes wrong in a study besides the package's own errors."""


class DataError(Exception):
    """The data is not there or not what it should be; the message says what to do."""
