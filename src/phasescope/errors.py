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


def reason(error: BaseException) -> str:
    """What went wrong first, for libraries wrap what others raised; a line of at most 200 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{(str(error).splitlines() or [''])[0] or type(error).__name__:.200}"


def word(name: str) -> str:
    """A name as it is, or in quotes if it holds more than letters, digits and dashes."""
    return name if re.fullmatch(r"[\w-]+", name) else repr(name)
