"""The one kind of error a user's input may cause: a single line that says what to do."""


class UserError(ValueError):
    """Bad input, said in one line: what was expected, what came, what to do; the command line exits with 2."""
