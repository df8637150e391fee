"""How numbers, and lists of names, are said."""

import re
from collections.abc import Iterable


def in_words(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def some(items: Iterable[object], between: str = ", ") -> str:
    """The first few of many, for an error sentence: `a, b, c, d, e and 7 more`."""
    items = [str(item) for item in items]
    return between.join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def writable(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8, surrogates in Python, as of an old archive's umlauts, are `_`."""
    return re.sub("[\ud800-\udfff]", "_", name)
