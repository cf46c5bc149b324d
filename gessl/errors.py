"""The exceptions that a user is meant to read."""


class UserError(Exception):
    """Bad input: the message is one line that says what is wrong, where, and how to mend it.

    `gessl` prints it without a traceback and exits with code 2.
    """


class Unfinished(Exception):  # noqa: N818  (it is no error)
    """Nothing is wrong, but a run is not at its end: the message is one line, and the same command goes on with it.

    `gessl` prints it without a traceback and exits with code 75, which tells a scheduler to try again (EX_TEMPFAIL).
    """
