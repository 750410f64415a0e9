"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Something the user can mend: told as one line (what, where, what is allowed, what to do), never a traceback."""
