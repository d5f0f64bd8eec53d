"""Photographs in folders and prefixes: which of their files are some, and what is left out.

A folder at a time, in a fixed order, so that listings stream.
"""

from __future__ import annotations

import fnmatch
import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jobs.config.listing import ListingOptions
from jobs.errors import UsageError
from jobs.ledger.layout import JOB, PREVIEW
from jobs.ledger.left_out import LeftOut
from jobs.ledger.names import file_keys, folder_keys
from jobs.stores.entries import entries
from jobs.stores.filesystems import StorageOptions, is_url, path_url, read_url, url_to_filesystem
from jobs.stores.threads import map_in_turn
from nst.images.kinds import HEAD_BYTES, kind_of_head

__all__ = ["PHOTO_EXTENSIONS", "Folder", "Photo", "Selection", "file_size", "photos_of", "walk"]

# fmt: off
PHOTO_EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo", ".png", ".apng", ".webp", ".tif",
    ".tiff", ".bmp", ".dib", ".gif", ".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx",
    # cameras' own
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf", ".rw2", ".pef",
    ".srw", ".3fr", ".fff", ".iiq", ".erf", ".mrw", ".x3f", ".kdc", ".dcr", ".mef", ".mos", ".rwl", ".gpr",
))
"""Files with these are photographs; all others are looked into, but for those below."""
_OTHER_EXTENSIONS = frozenset((
    ".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".xml", ".html", ".htm", ".css",
    ".js", ".py", ".toml", ".yaml", ".yml", ".ini", ".log", ".pdf", ".doc", ".docx", ".odt", ".xls", ".xlsx",
    ".xmp", ".aae", ".pp3", ".dop", ".cos", ".on1", ".acr", ".xcf", ".psd", ".psb", ".svg", ".ai", ".eps",
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".3gp", ".mpg", ".lrv", ".insv",
    ".mp3", ".wav", ".m4a", ".aac", ".flac", ".ogg", ".zip", ".gz", ".tar", ".7z", ".rar", ".iso", ".exe",
    ".dll", ".db", ".sqlite", ".lrcat", ".icc", ".icm", ".cube", ".gpx", ".kml", ".safetensors", ".pth", ".pt",
))
"""What lies beside photographs by the thousand: it is not read to see that it is none."""
_JUNK_FOLDERS = (
    "@eadir", "@recycle", "#recycle", "#snapshot", "@*recycle*", "$recycle.bin", "__macosx", "lost+found",
    "system volume information", "_vti_cnf", "adobe bridge cache*", "*.lrdata", "*.cocatalogdb", "captureone",
    "*.photoslibrary/resources", "*.photoslibrary/database", "*.photoslibrary/private",
    "*.photolibrary/thumbnails", "*.photolibrary/previews", "*.photolibrary/resources",
)
"""Where systems and photo programs keep thumbnails, previews and what was deleted; hidden ones go anyway."""
_JUNK_FILES = frozenset((
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "zbthumbnail.info", "icon\r",
))
_THUMBNAILS = ("synofile_thumb_", "synophoto_thumb_")
_HALF_FILES = (".part", ".partial", ".crdownload", ".tmp", "~", ".thm")
"""Beginnings of thumbnails' names; ends of what is not there whole, or a film's thumbnail."""
# fmt: on
_JUNK_FOLDER = re.compile("|".join(map(fnmatch.translate, _JUNK_FOLDERS)), re.IGNORECASE)
_RECORDS = {JOB: {"format", "fingerprint"}, PREVIEW: {"format", "preview"}}
"""Files that say whose folder it is, and what is in them at least."""
_LOOKS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph as listed."""

    key: str
    url: str
    size_bytes: int | None = None
    style: str | None = None
    """Of a table with such a column."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What is in a folder. Those that are taken out of `folders` are not walked."""

    path: str
    """Relative to where the walk began; empty there."""
    key: str
    """What the keys of its files begin with."""
    folders: list[str] = field(default_factory=list)
    files: list[tuple[str, int | None]] = field(default_factory=list)
    """Names and sizes."""
    links: tuple[str, ...] = ()
    """Folders that are elsewhere."""

    def inner(self, name: str) -> str:
        """The path of what is in it."""
        return f"{self.path}/{name}" if self.path else name


def walk(root: str, storage: StorageOptions, path: str = "", key: str = "") -> Iterator[Folder]:
    """The folder at `path` below `root` and those in it, parents before children, each sorted by name."""
    waiting = [(path, key)]
    if is_url(root):
        filesystem, base = url_to_filesystem(root, storage)
        listed = partial(_listed_prefix, filesystem, base.rstrip("/"), storage)
    else:
        listed = partial(_listed_folder, root)
    while waiting:
        folder = listed(*waiting.pop())
        yield folder
        names = sorted(folder.folders)
        below = zip(map(folder.inner, names), folder_keys(folder.key, names), strict=True)
        waiting += reversed([*below])


def _listed_folder(root: str, path: str, key: str) -> Folder:
    found = Folder(path, key)
    for place, inner, names in os.walk(os.path.join(root, path), onerror=_fail):
        links = tuple(sorted(name for name in inner if os.path.islink(os.path.join(place, name))))
        folders = [name for name in inner if name not in links]
        found = Folder(path, key, folders, [(name, file_size(place, name)) for name in names], links)
        break
    return found


def _fail(error: OSError) -> None:
    """A folder that cannot be listed must not pass for an empty one."""
    raise error


def file_size(folder: str, name: str) -> int | None:
    """Bytes of a local file; None: it cannot be told."""
    try:
        return os.stat(os.path.join(folder, name)).st_size
    except OSError:  # a dangling link is a photograph that will fail with its reason, not one to leave out
        return None


def _listed_prefix(filesystem: Any, base: str, storage: StorageOptions, path: str, key: str) -> Folder:
    # Not filesystem.walk: below the first level it takes a folder that cannot be listed for an empty one.
    place = f"{base}/{path}" if path else base
    files: list[tuple[str, int | None]] = []
    folders: set[str] = set()
    for entry in entries(filesystem, place, storage.backoff()):
        if not entry.name:
            raise UsageError(
                f"below {place}/ is a folder without a name (`//`), which cannot be listed; "
                f"a manifest with a `url` column can name what is in it"
            )
        if entry.is_folder:
            folders.add(entry.name)
        else:
            files.append((entry.name, entry.size_bytes))
    return Folder(path, key, sorted(folders), files)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files below `root` are photographs."""

    root: str
    options: ListingOptions
    storage: StorageOptions
    left_out: LeftOut
    pattern: str | None = None
    """A glob that relative paths match; None: all do."""
    output: str | None = None
    """The job's own folder, of which nothing is taken."""

    def url(self, path: str) -> str:
        """Where a file below the root is."""
        return f"{self.root.rstrip('/')}/{path}"

    def folders(self, folder: Folder) -> list[str]:
        """Those of a folder's folders that may hold photographs."""
        kept = []
        for name in (*folder.folders, *folder.links):
            path = folder.inner(name)
            if self.pattern is not None and not _leads_to(path, self.pattern):
                continue
            if self._excluded(path):
                self.left_out.add("exclude", f"{path}/", f"{name}/")
            elif not self.options.hidden and _is_junk_folder(path):
                self.left_out.add("hidden", f"{path}/", f"{name}/")
            elif name in folder.links:
                self.left_out.add("link", f"{path}/", f"{name}/")
            else:
                kept.append(name)
        return kept

    def is_a_jobs(self, folder: Folder) -> bool:
        """Whether a folder is this job's, or, below the root, another one's or a preview's."""
        if self.output is not None and f"{self.url(folder.path).rstrip('/')}/".startswith(
            self.output.rstrip("/") + "/"
        ):
            return True
        found = [name for name, _ in folder.files if name in _RECORDS]
        if self.options.hidden or not folder.path or not found:
            return False
        try:
            record = json.loads(read_url(self.url(folder.inner(found[0])), self.storage))
        except ValueError:
            return False
        if not isinstance(record, dict) or not _RECORDS[found[0]] <= record.keys():
            return False
        self.left_out.add("job", f"{folder.path}/", f"{posixpath.basename(folder.path)}/")
        return True

    def files(self, folder: Folder, looks: ThreadPoolExecutor) -> list[tuple[str, int | None]]:
        """Names and sizes of a folder's photographs, sorted."""
        wanted, unknown = [], []
        for name, size in sorted(folder.files):
            path = folder.inner(name)
            if self.pattern is not None and not matches(path, self.pattern):
                continue
            extension = posixpath.splitext(name)[1].lower()
            if self._excluded(path):
                self.left_out.add("exclude", path, extension or "without extension")
            elif not self.options.hidden and _is_junk_file(name):
                self.left_out.add("hidden", path, "._*" if name.startswith("._") else name)
            elif extension in PHOTO_EXTENSIONS:
                wanted.append((name, size))
            elif size != 0 and extension not in _OTHER_EXTENSIONS:
                unknown.append((name, size))
            else:
                self.left_out.add("kind", path, extension or "without extension")
        heads = map_in_turn(looks, self._head, (folder.inner(name) for name, _ in unknown))
        for (name, size), head in zip(unknown, heads, strict=True):
            if kind_of_head(head) is not None:
                wanted.append((name, size))
            else:
                kind = posixpath.splitext(name)[1].lower() or "without extension"
                self.left_out.add("kind", folder.inner(name), kind)
        return sorted(wanted)

    def _head(self, path: str) -> bytes:
        """A file's first bytes; none of what is no plain file or may not be read."""
        place = self.url(path)
        try:
            if not is_url(self.root):
                if not os.path.isfile(place):  # a pipe would wait for ever
                    return b""
                with open(place, "rb", buffering=0) as file:
                    return file.read(HEAD_BYTES)
            filesystem, whole = url_to_filesystem(place, self.storage)
            read = partial(filesystem.cat_file, whole, start=0, end=HEAD_BYTES)
            return bytes(self.storage.backoff()(read))[:HEAD_BYTES]
        except (FileNotFoundError, PermissionError):
            return b""

    def _excluded(self, path: str) -> bool:
        name = posixpath.basename(path)
        for glob in self.options.exclude:
            plain, whole = glob.strip("/"), "/" in glob.rstrip("/")
            if plain == (path if whole else name):  # as a folder that is called `Rome [2019]`
                return True
            if matches(path, plain) if whole else fnmatch.fnmatchcase(name, plain):
                return True
        return False


def photos_of(folders: Iterable[Folder], selection: Selection) -> Iterator[Photo]:
    """The photographs in folders as `walk` gives them."""
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as looks:
        for folder in folders:
            if selection.is_a_jobs(folder):
                folder.folders.clear()
                continue
            folder.folders[:] = selection.folders(folder)
            files = selection.files(folder, looks)
            keys = file_keys(folder.key, [name for name, _ in files])
            for (name, size), key in zip(files, keys, strict=True):
                url = selection.url(folder.inner(name))
                yield Photo(key=key, url=url if is_url(url) else path_url(url), size_bytes=size)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") and name not in (".", "..")  # which an object store may have


def _is_junk_file(name: str) -> bool:
    plain = name.lower()
    return (
        _is_hidden(name) or plain in _JUNK_FILES or plain.startswith(_THUMBNAILS) or plain.endswith(_HALF_FILES)
    )


def _is_junk_folder(path: str) -> bool:
    """Whether a folder is hidden, or junk by its name, or by its name within its own folder."""
    *_, parent, name = ("", *path.split("/"))
    return _is_hidden(name) or any(map(_JUNK_FOLDER.fullmatch, (name, f"{parent}/{name}")))


def matches(path: str, pattern: str) -> bool:
    """Whether a relative path matches a glob: `*` and `?` stay within a folder; `**` crosses folders."""
    return _match(path.split("/"), pattern.split("/"), whole=True)


def _leads_to(folder: str, pattern: str) -> bool:
    """Whether something in a folder, or below it, may match a glob."""
    *wanted, last = pattern.split("/")
    return _match(folder.split("/"), [*wanted, last] if last == "**" else wanted, whole=False)


def _match(parts: Sequence[str], wanted: Sequence[str], *, whole: bool) -> bool:
    if not whole and not parts:
        return True
    if not wanted:
        return not parts
    if wanted[0] == "**":
        rest = bool(parts) and _match(parts[1:], wanted, whole=whole)
        return rest or _match(parts, wanted[1:], whole=whole)
    same = bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0])
    return same and _match(parts[1:], wanted[1:], whole=whole)
