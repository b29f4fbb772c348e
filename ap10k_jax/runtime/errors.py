"""The error type of a user's mistakes, which every command turns into a message."""


class UserError(Exception):
    """A mistake that the user can mend; shown without a traceback."""
