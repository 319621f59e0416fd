"""The base class of every error that a user of the package may want to catch."""


class PincaptionError(Exception):
    """An error that the caller can do something about.

    The message is one sentence that names the file, row or option and says what to do. The command line
    prints it and ends with exit code 1.
    """


class OptionError(PincaptionError, ValueError):
    """Options that contradict one another, or a value that an option cannot have."""
