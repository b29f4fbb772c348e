"""Commands called in this process."""

from collections.abc import Callable


def status(main: Callable, *arguments: object) -> int | None:
    """The exit status of a command's main()."""
    try:
        return main(*arguments)
    except SystemExit as stop:
        return stop.code
