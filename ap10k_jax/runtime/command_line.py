"""The parser of the command lines: flags have hyphens, and underscores are accepted, too."""

import argparse
import sys
from collections.abc import Sequence


class Parser(argparse.ArgumentParser):
    """The parser of `python -m NAME`, with the module's docstring as its help."""

    def __init__(self, name: str, description: str | None, **options: object):
        super().__init__(
            prog=f"python -m {name}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def parse_known_args(self, args: Sequence[str] | None = None, namespace=None):
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        words[:end] = map(hyphenated, words[:end])
        return super().parse_known_args(words, namespace)


def hyphenated(word: str) -> str:
    """--move-to=a_b of --move_to=a_b; other words as they are."""
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if name.startswith("--") else word
