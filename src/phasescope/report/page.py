"""The page: one HTML file with all it shows, which asks nothing of a network.

Pictures and histograms are in it as gzip, in base64, and unpacked by the browser: 38 figures of 4.1 MB take 0.7 MB.
A policy in its head allows the page its own style, its own script and pictures it made itself, and nothing else.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from phasescope.report.contents import Course, Picture, Shown

#: What the browser may do, where {script} and {style} stand for their digests.
_POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src blob: data:; "
    "base-uri 'none'; form-action 'none'"
)


def page(
    runs: Mapping[str, Mapping[str, str]],
    tables: Sequence[Shown],
    courses: Sequence[Course],
    pictures: Mapping[str, Sequence[Picture]],
    grids: Mapping[str, Mapping[str, Any]],
    made: Sequence[tuple[list[str], dict[str, str]]],
    code: Mapping[str, str],
) -> str:
    """The page as HTML; the same contents give the same text.

    Args:
        runs: what each run is, as `phasescope.report.contents.about` tells it.
        tables: phases, time scales and mechanisms.
        courses: the phases of every layer in time.
        pictures: by the heading they stand under.
        grids: of the runs that have any, what `phasescope.report.contents.grid` gives.
        made: what `phasescope.report.contents.makers` gives.
        code: digest of the code that made something, by what it made.
    """
    folder = resources.files("phasescope.report")
    template, style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("page.html", "style.css", "script.js")
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"packed": _packed, "json": _json, "base64": _base64}
    return environment.from_string(template).render(
        policy=_POLICY.format(script=_digest(script), style=_digest(style)),
        style=Markup(style),
        script=Markup(script),
        runs=runs,
        tables=tables,
        courses=courses,
        pictures=pictures,
        grids=grids,
        made=made,
        code=code,
    )


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False, sort_keys=True).encode()


def _packed(data: bytes) -> str:
    """As gzip without a time, in base64, of which no letter means anything in HTML."""
    return _base64(gzip.compress(data, 9, mtime=0))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _digest(text: str) -> str:
    return f"sha256-{_base64(hashlib.sha256(text.encode()).digest())}"
