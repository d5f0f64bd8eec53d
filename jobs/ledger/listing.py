"""What photographs there are: a folder, a glob, a bucket prefix, single files, or a table that names them.

Listings come in a fixed order, a folder at a time, so that they stream.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from jobs.config.listing import STANDARD_LISTING, ListingOptions
from jobs.ledger.folders import PHOTO_EXTENSIONS, Folder, Photo, Selection, file_size, photos_of, walk
from jobs.ledger.left_out import LeftOut
from jobs.ledger.names import safe_path
from jobs.ledger.tables import TABLES, list_table
from jobs.stores.filesystems import (
    STANDARD_STORAGE,
    StorageOptions,
    absolute_url,
    is_url,
    kind_of,
    url_to_filesystem,
)
from nst.errors import OptionError

__all__ = ["PHOTO_EXTENSIONS", "Photo", "list_photos", "pictures_in", "root_of"]

_MAGIC = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{[^{}/]*,[^{}/]*\}")


def list_photos(
    source: str | Sequence[str],
    *,
    exclude: str | None = None,
    options: ListingOptions = STANDARD_LISTING,
    storage: StorageOptions = STANDARD_STORAGE,
    left_out: LeftOut | None = None,
) -> Iterator[Photo]:
    """The photographs that `source` names.

    Args:
        source: a folder, a glob, a file or a table; or several files and folders; absolute.
        exclude: the job's own folder, of which nothing is taken, nor said.
        options: which of the files are photographs.
        left_out: counts the others, while it is listed.

    Raises:
        OptionError: nothing is there, or it is no folder, glob, file or table.
        UsageError: a table without places, or with a key that is no relative path.
    """
    places = (source,) if isinstance(source, str) else tuple(dict.fromkeys(source))
    kinds = {place: _kind_at(place, storage) for place in places}
    first, kind = next(iter(kinds.items()))
    is_table = first.lower().endswith(TABLES)
    if len(places) == 1 and kind is not None and kind != "directory" and is_table:
        return list_table(first, options, storage)
    selection = Selection("", options, storage, left_out or LeftOut(), output=exclude)
    if len(places) == 1 and kind == "directory":
        return _list_folder(replace(selection, root=first))
    if len(places) == 1 and kind is None and _MAGIC.search(first):
        return _list_glob(first, selection)
    for place, found in kinds.items():
        if found is None:
            what = "file" if is_table else "folder or file"
            raise OptionError("photos", place, reason=f"there is no such {what}{_of_braces(place)}")
        if found != "directory" and place.lower().endswith(TABLES):
            raise OptionError("photos", place, reason="is a manifest, which stands alone")
    return _list_several(kinds, selection)


def pictures_in(
    place: str,
    *,
    exclude: str | None = None,
    storage: StorageOptions = STANDARD_STORAGE,
    left_out: LeftOut | None = None,
) -> list[str] | None:
    """Where the pictures in the folder or bucket prefix `place` (absolute) are, sorted, but for those below the
    folder `exclude`; None if it is no folder. `left_out` counts what else is in it.

    Raises:
        OSError: it cannot be asked for or listed.
        UsageError: it holds folders without a name.
    """
    if place.startswith(("http://", "https://")) or _kind_at(place, storage) != "directory":
        return None  # the web has no folders
    photos = _list_folder(Selection(place, STANDARD_LISTING, storage, left_out or LeftOut(), output=exclude))
    return sorted(absolute_url(photo.url, Path("/")) for photo in photos)


def _list_folder(selection: Selection) -> Iterator[Photo]:
    return photos_of(walk(selection.root, selection.storage), selection)


def _list_glob(source: str, selection: Selection) -> Iterator[Photo]:
    root, pattern = _split_glob(source, lambda place: _kind_at(place, selection.storage) == "directory")
    if _kind_at(root, selection.storage) != "directory":
        raise OptionError("photos", source, reason=f"there is no folder {root}{_of_braces(root)}")
    photos = _list_folder(replace(selection, root=root, pattern=pattern))
    return _or_braces(photos, source) if _BRACES.search(source) else photos


def _split_glob(source: str, is_there: Callable[[str], bool]) -> tuple[str, str]:
    """The folder that a glob is below, and the glob. What is there under its very name, as a folder that is
    called `Rome [2019]`, is no part of it; if all is, there is none."""
    parts = source.split("/")
    for number, part in enumerate(parts):
        if _MAGIC.search(part) and not is_there("/".join(parts[: number + 1])):
            return "/".join(parts[:number]) or "/", "/".join(parts[number:])
    return source, ""


def _or_braces(photos: Iterator[Photo], source: str) -> Iterator[Photo]:
    """`photos`, unless there are none because of what is no part of a glob here."""
    count = 0
    for count, photo in enumerate(photos, 1):  # noqa: B007
        yield photo
    if not count:
        raise OptionError("photos", source, reason=f"no photographs found{_of_braces(source)}")


def _of_braces(place: str) -> str:
    """What there is to say of a place with braces where nothing is."""
    found = _BRACES.search(place)
    return f"; {found[0]} is for shells to understand, outside of quotes: here it is a name" if found else ""


def _list_several(kinds: dict[str, str | None], selection: Selection) -> Iterator[Photo]:
    """Files, and what is in folders, under keys that are relative to the folder that holds them all."""
    parents = [posixpath.dirname(place.rstrip("/")) for place in kinds]
    steps = zip(*(parent.split("/") for parent in parents), strict=False)
    root = [step[0] for step in takewhile(lambda step: len(set(step)) == 1, steps)]
    if len(root) < (3 if any(map(is_url, kinds)) else 1):
        raise OptionError("photos", next(iter(kinds)), reason="lies in another store than the others")
    top = "/".join(root) or "/"
    paths = {place.rstrip("/").removeprefix(top).strip("/"): kind for place, kind in kinds.items()}
    folders = {path for path, kind in paths.items() if kind == "directory"}
    single: dict[str, list[str]] = {}
    for path in paths.keys() - folders:
        if not any(path.startswith(f"{folder}/") for folder in folders):
            single.setdefault(posixpath.dirname(path), []).append(posixpath.basename(path))
    outer = [path for path in folders if not any(path.startswith(f"{each}/") for each in folders)]
    given = _given(top, sorted(outer), single, selection.storage)
    return photos_of(given, replace(selection, root=top))


def _given(
    root: str, folders: Sequence[str], single: Mapping[str, list[str]], storage: StorageOptions
) -> Iterator[Folder]:
    for path in sorted({*folders, *single}):
        if path in single:
            place = f"{root.rstrip('/')}/{path}"
            sizes = [(name, None if is_url(root) else file_size(place, name)) for name in single[path]]
            yield Folder(path, safe_path(path), files=sizes)
        else:
            yield from walk(root, storage, path, safe_path(path))


def root_of(source: str, is_there: Callable[[str], bool] = os.path.exists) -> str:
    """The folder or prefix that holds the photographs that `source` names: a folder, a glob, or a table.

    Args:
        is_there: whether something is, or was, at a place whose name looks like a glob.
    """
    if os.path.isdir(source):
        return source
    if source.lower().endswith(TABLES):
        return source.rpartition("/")[0]
    return _split_glob(source, is_there)[0]


def _kind_at(place: str, storage: StorageOptions) -> str | None:
    """`directory`, or what else is there; None: nothing is."""
    if not is_url(place):
        return "directory" if os.path.isdir(place) else "file" if os.path.exists(place) else None
    filesystem, path = url_to_filesystem(place, storage)
    return storage.backoff()(lambda: kind_of(filesystem, path))
