"""The one exception that a person is meant to read."""


class StudyError(ValueError):
    """Something in the input is wrong: the message says what, where and what to do.

    The command line prints it as one line and exits with code 2; a notebook shows it as the last
    line of its traceback.
    """
