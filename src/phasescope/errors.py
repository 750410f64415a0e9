"""The one exception that is meant for the user's eyes."""

import difflib
import re


class UserError(Exception):
    """Something the user can mend: told as one line (what, where, what is allowed, what to do), never a traceback."""


def unknown(value: str, known: list[str], what: str) -> str:
    """Say that a name is not known, the nearest one that is, and which there are."""
    near = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {value!r}; {hint}known: {', '.join(map(word, known))}"


def word(name: str) -> str:
    """A name as it is, or in quotes if it holds more than letters, digits and dashes."""
    return name if re.fullmatch(r"[\w-]+", name) else repr(name)
