"""The page of a job as one file that opens from disk: all that the server would send is in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from jobs.console.html import text

__all__ = ["data_url", "embedded", "one_file", "page_body", "static", "viewer_dialog"]


def static(name: str) -> bytes:
    """A file of the page."""
    return files("jobs.view").joinpath("static", name).read_bytes()


def page_body() -> str:
    """What is in the page before anything is known of a job."""
    return _cut(static("index.html").decode(), "<body>", "</body>")


def viewer_dialog() -> str:
    """The part of the page that shows one photograph."""
    start, end = '<dialog id="viewer"', "</dialog>"
    return f"{start}{_cut(page_body(), start, end)}{end}"


def embedded(name: str, value: Any) -> str:
    """`value` as JSON in the page, in an element with this id. It is text there, whatever it says."""
    told = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{text(name)}">{told}</script>'


def data_url(data: bytes, kind: str) -> str:
    """A file within an address."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def one_file(
    title: str,
    body: str,
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    pictures: str = "data:",
    after: Iterable[str] = (),
) -> str:
    """A whole page, which may load nothing but its own style and script, and pictures.

    Args:
        title: plain text, which is escaped.
        body: HTML.
        styles: names of the page's files, in order.
        scripts: likewise; they run where they stand, after the body.
        pictures: where pictures may be from, as a policy says it.
        after: HTML after the scripts, for what they need later.
    """
    style = "\n".join(static(name).decode() for name in styles)
    script = "\n".join(static(name).decode() for name in scripts)
    assert "</style" not in style
    assert "</script" not in script
    policy = (
        f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; "
        f"img-src {pictures}; base-uri 'none'; form-action 'none'"
    )
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n',
            f"<title>{text(title)}</title>\n",
            f'<link rel="icon" href="{data_url(static("icon.svg"), "image/svg+xml")}">\n',
            f"<style>{style}</style></head>\n<body>{body}<script>{script}</script>",
            *after,
            "</body></html>\n",
        ]
    )


def _digest(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _cut(whole: str, start: str, end: str) -> str:
    """What is between the first `start` and the next `end`."""
    return whole.split(start, 1)[1].split(end, 1)[0]
