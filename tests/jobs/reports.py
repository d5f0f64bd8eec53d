"""What is in the file of a report."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from PIL import Image

__all__ = ["Report", "check_harmless"]

_TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "link",
        "style",
        "body",
        "script",
        "noscript",
        "code",
        "header",
        "main",
        "section",
    ),
    *("div", "span", "p", "b", "i", "h1", "h2", "ul", "li", "dl", "table", "thead", "tbody", "tr", "th", "td"),
    *("details", "summary", "dialog", "aside", "form", "input", "button", "select", "option"),
    *("figure", "figcaption", "img", "svg", "polyline"),
}
"""That our pages are made of."""


class Report(HTMLParser):
    """A report, as a browser reads it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        """What a person reads before any script has run."""
        self.embedded: dict[str, Any] = {}
        self.sources: dict[str, list[str]] = {"script": [], "style": []}
        self._within: tuple[str, str | None] | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag in ("script", "style"):
            self._within = tag, found.get("id") if found.get("type") == "application/json" else None
            self._source = ""

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        if self._within is not None:
            kind, name = self._within
            if name is None:
                self.sources[kind].append(self._source)
            else:
                self.embedded[name] = json.loads(self._source)
            self._within = None

    def handle_data(self, data: str) -> None:
        if self._within is None:
            self.text += data
        else:
            self._source += data

    @property
    def job(self) -> dict[str, Any]:
        found: dict[str, Any] = self.embedded["data"]["job"]
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.embedded["data"]["rows"]
        return found

    def row(self, key: str) -> dict[str, Any]:
        (found,) = (row for row in self.rows if row["key"] == key)
        return found

    def thumbnails(self, key: str) -> list[Image.Image | None]:
        """Of the photograph and of the picture."""
        number = self.rows.index(self.row(key))
        part, place = divmod(number, self.embedded["data"]["chunk"])
        found = self.embedded[f"pictures-{part}"][place]
        return [each and Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


@dataclass
class _Policy:
    """A content security policy."""

    rules: dict[str, list[str]] = field(default_factory=dict)

    @staticmethod
    def parse(text: str) -> _Policy:
        rules = [rule.split() for rule in text.split(";")]
        return _Policy({name: sources for name, *sources in rules})


def check_harmless(html: str, images: set[str]) -> None:
    """The page runs its own script, and loads nothing but pictures.

    Args:
        images: where these may be from.
    """
    report = Report(html)
    (policy,) = (
        _Policy.parse(found["content"] or "")
        for tag, found in report.tags
        if tag == "meta" and (found.get("http-equiv") or "").lower() == "content-security-policy"
    )
    assert set(policy.rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}
    for name in ("default-src", "base-uri", "form-action"):
        assert policy.rules[name] == ["'none'"]
    assert set(policy.rules["img-src"]) == images
    for kind, (source,) in report.sources.items():
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert policy.rules[f"{kind}-src"] == [f"'sha256-{digest}'"]
    assert {tag for tag, _ in report.tags} <= _TAGS
    for tag, attributes in report.tags:
        assert not {name for name in attributes if name.startswith("on")} | (
            {"style", "srcset"} & set(attributes)
        )
        for name in {"href", "src"} & set(attributes):
            assert re.match("data:image/", attributes[name] or ""), (tag, name)
    code = "".join(source for sources in report.sources.values() for source in sources)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", code)
