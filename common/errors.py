"""The base of every error that a user of the package may want to catch."""


class PincaptionError(Exception):
    """Something that the caller can mend. The message is one sentence that names the file, row or option, and
    says what to do. The command line prints it and ends with exit code 1.
    """
