"""Base class of all errors that a user can act on."""


class OjalaError(Exception):
    """An error whose message says what happened, why, and what to do.

    The command line shows it in one line. Every other exception is a fault of the program and is shown with
    its traceback.
    """
