"""The error type of a user's mistakes, and the way in which every command reports them."""

import contextlib
import sys
from collections.abc import Iterator


class UserError(Exception):
    """A mistake that the user can mend; shown without a traceback."""


@contextlib.contextmanager
def reported(*kinds: type[Exception]) -> Iterator[None]:
    """UserError, OSError and further `kinds` end the program: `error: ...`, exit status 1."""
    try:
        yield
    except (UserError, OSError, *kinds) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
