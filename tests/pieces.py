"""Pieces of work for the workers of a cluster, who import them by name."""

import os
import signal
import time
from pathlib import Path


def square(advance, number):
    advance(1)
    return number**2, Path.cwd()


def die(advance, number):
    os.kill(os.getpid(), signal.SIGKILL)


def die_half_way(advance, mark, group):
    """Dies once with half a file written; then writes it whole."""
    if not mark.exists():
        mark.touch()
        (group / "c.0.0.123.partial").write_bytes(b"ha")
        (group / "c.0.1").write_bytes(b"ha")
        os.kill(os.getpid(), signal.SIGKILL)
    (group / "c.0.0").write_bytes(b"whole")
    return sorted(path.name for path in group.iterdir())


def wait(advance, began, ended):
    """Goes on until nobody waits for it."""
    began.touch()
    try:
        while True:
            advance(0)
            time.sleep(0.05)
    finally:
        ended.touch()


def process(advance):
    advance(1)
    time.sleep(0.1)
    return os.getpid()


def forget_a_module():
    """As if this process had loaded a module that was edited afterwards."""
    from phasescope import piece

    piece._loaded["phasescope.errors"] = "another"


def first(advance, value, cache):
    return value


def of_own(advance, name):
    from phasescope import own

    return own.call(name, {}, {})


def install_a_package():
    """As if a package had been installed since this process began."""
    from phasescope import piece

    piece._installed.update(dict.fromkeys(piece._installed, 0))
