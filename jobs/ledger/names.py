"""Names of results: those of photographs, made safe for the strictest of the common file systems.

One rule, for each part of a path: what Windows, exFAT or SMB refuse stands as percent-escapes, so that
`urllib.parse.unquote` gives the name back; names that some file system takes for one are told apart by more of
the name, or by a digest. Names are made when a job is begun and stay with it, in its manifest.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from jobs.errors import UsageError

__all__ = ["check_key", "file_keys", "folded", "folder_keys", "safe_part", "safe_path"]

_MAX_PART_BYTES = 200  # of a key between slashes; file systems take 255 with what is added
_MAX_KEY_BYTES = 900
_LIKE_AN_ESCAPE = re.compile("%(?=[0-9A-Fa-f]{2})")
_PLAIN = re.compile(r"[A-Za-z0-9_()+, -]{0,99}[A-Za-z0-9_()+-]", re.ASCII)
_REFUSED = frozenset('\\/:?*"<>|')
_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL
)
"""Names that Windows keeps for devices, whatever their extension."""


def folded(name: str) -> str:
    """What two names have in common that some file system takes for one: by case, or by Unicode's forms."""
    if name.isascii():
        return name.lower()
    plain = unicodedata.normalize("NFD", name).upper().casefold()
    return unicodedata.normalize("NFD", plain)


def file_keys(folder: str, names: Sequence[str]) -> list[str]:
    """Keys for the files of one folder, whose own key is `folder`: their names without extension, or with it
    where two would be equal, or with a digest where they still are."""
    keys = _apart(names, lambda name: posixpath.splitext(name)[0], lambda name: name)
    return [f"{folder}/{key}" if folder else key for key in keys]


def folder_keys(folder: str, names: Sequence[str]) -> list[str]:
    """Keys for folders that lie side by side in the one whose key is `folder`."""
    keys = _apart(names, lambda name: name)
    return [f"{folder}/{key}" if folder else key for key in keys]


def _apart(names: Sequence[str], *ways: Callable[[str], str]) -> list[str]:
    """Each name in the first way in which it is alone, as the strictest file system compares them."""
    first, *others = ways
    keys = [_safe(first(name)) for name in names]
    for way in (*others, _with_digest):
        repeated = Counter(folded(key) for key in keys)
        keys = [
            key if repeated[folded(key)] == 1 else _safe(way(name))
            for key, name in zip(keys, names, strict=True)
        ]
    return keys


def _with_digest(name: str) -> str:
    return f"{name}~{_short_digest(name)}"


def safe_path(path: str) -> str:
    """A relative path with each of its parts made safe."""
    return "/".join(_safe(part) for part in path.split("/"))


def safe_part(name: str) -> str:
    """Any name, made safe as one part of a path."""
    return _safe(name)


def _safe(part: str) -> str:
    """A name as every file system takes it: reversible, but for what is cut.

    An object store may also hold names like `../x`, which would lead out of the output folder.
    """
    if _PLAIN.fullmatch(part) and not _DEVICE.fullmatch(part):  # as most are
        return part
    if part in (".", ".."):
        return part.replace(".", "%2E")
    plain = _LIKE_AN_ESCAPE.sub("%25", part)
    plain = "".join(_escaped(c) if _refused(c) else c for c in plain)
    if plain.endswith((".", " ")):  # Windows drops them
        plain = plain[:-1] + _escaped(plain[-1])
    if _DEVICE.fullmatch(plain):
        plain = _escaped(plain[0]) + plain[1:]
    return _cut(plain)


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


def _cut(part: str) -> str:
    if len(part.encode()) <= _MAX_PART_BYTES:
        return part
    return f"{part.encode()[: _MAX_PART_BYTES - 9].decode(errors='ignore')}~{_short_digest(part)}"


def _refused(character: str) -> bool:
    return character in _REFUSED or _unprintable(character)


def _unprintable(character: str) -> bool:
    return not character.isprintable() or "\ud800" <= character <= "\udfff"


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def check_key(key: str, where: str) -> None:
    """Refuse a key of a manifest's that is no plain relative path. It is taken as it is, or not at all.

    Raises:
        UsageError: it would lead elsewhere, or is no name.
    """
    parts = key.split("/")
    if (
        not key
        or any(part in ("", ".", "..") for part in parts)
        or any(character in "\\:" or _unprintable(character) for character in key)
    ):
        raise UsageError(f"{where}: key {key!r} is no plain relative path")
    longest = max(len(part.encode()) for part in parts)
    if longest > _MAX_PART_BYTES or len(key.encode()) > _MAX_KEY_BYTES:
        reason = f"at most {_MAX_PART_BYTES} bytes between slashes, and {_MAX_KEY_BYTES} in all"
        raise UsageError(f"{where}: key {key[:40]!r}... is too long: {reason}")
