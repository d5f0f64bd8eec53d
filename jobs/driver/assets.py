"""What a method needs besides photographs: read once by the driver, checked, shared by all workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, cast, get_args, get_origin, get_type_hints

from jobs.errors import UsageError
from jobs.ledger.left_out import LeftOut
from jobs.ledger.listing import pictures_in
from jobs.stores.filesystems import STANDARD_STORAGE, StorageOptions, is_url, read_url, why_unreadable
from nst.errors import DecodeError, ImageError, OptionError, WeightsError
from nst.styles import PREFIX, style_bytes

if TYPE_CHECKING:
    from nst.stylizer import AssetRef, Method

__all__ = [
    "Asset",
    "NeedsAssets",
    "by_url",
    "check_weights",
    "expand_folders",
    "is_own",
    "named_by_option",
    "read_assets",
]


_MOST_BYTES = 2**30
"""Of all pictures of a method together: every worker keeps them."""


class NeedsAssets(Protocol):
    """What has files: a method, or a description of a network."""

    def assets(self) -> Sequence[AssetRef]: ...


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset's bytes, verified."""

    option: str
    url: str
    data: bytes
    sha256: str


def expand_folders(
    method: Method, storage: StorageOptions, *, exclude: str | None = None, left_out: LeftOut | None = None
) -> Method:
    """`method` with a folder's pictures, sorted, in place of the folder, in its options that take several
    pictures.

    Args:
        exclude: a folder whose pictures are not taken.
        left_out: counts what is in the folders and is no picture.

    Raises:
        OptionError: a folder holds no picture or cannot be listed, or the method cannot take so many.
    """
    hints = get_type_hints(type(method))
    lists: dict[str, list[str]] = {}
    folders: set[str] = set()
    for ref in method.assets():
        name = ref.option.partition("[")[0]
        if ref.kind != "image" or not _takes_several(hints.get(name)):
            continue
        found = _pictures_in(ref, storage, exclude, left_out)
        lists.setdefault(name, []).extend([ref.url] if found is None else found)
        if found is not None:
            folders.add(name)
    try:
        return cast("Method", replace(cast(Any, method), **{name: tuple(lists[name]) for name in folders}))
    except OptionError as error:  # e.g. as many weights as there were folders
        raise error.within("method") from error


def _takes_several(hint: Any) -> bool:
    """Whether an option's type is a tuple, or a tuple among others."""
    return any(get_origin(each) is tuple for each in (hint, *get_args(hint)))


def _pictures_in(
    ref: AssetRef, storage: StorageOptions, exclude: str | None, left_out: LeftOut | None
) -> list[str] | None:
    option = f"method.{ref.option}"
    if ref.url.startswith(PREFIX):
        return None
    try:
        found = pictures_in(ref.url, exclude=exclude, storage=storage, left_out=left_out)
    except (OSError, UsageError) as error:
        if isinstance(error, OSError) and is_url(ref.url):
            return None  # reading it fails, too, and says whether it is the store that does
        raise OptionError(option, ref.url, reason=f"cannot be listed: {error}") from error
    if found == []:
        raise OptionError(option, ref.url, reason="there is no picture in this folder")
    return found


def read_assets(
    method: NeedsAssets,
    storage: StorageOptions = STANDARD_STORAGE,
    *,
    table: str = "method",
    recorded: Mapping[str, str] | None = None,
    elsewhere: Callable[[str], str | None] = lambda _: None,
) -> list[Asset]:
    """Read and check every asset of `method`, whose options are those of `table`.

    Args:
        recorded: SHA-256 of each, by option, as it was when the job was begun.
        elsewhere: gives where else an asset may be; it is the one that it was if its bytes are.

    Raises:
        OptionError: one is not there, is no picture, or has another digest than the option says; or pictures
            are too many for memory.
        WeightsError: published weights are not to be had.
    """
    read = cache(lambda kind, url: _bytes(kind, url, storage))  # once: its digests are those of its one content
    digests = recorded or {}

    def wherever(ref: AssetRef) -> bytes:
        return _recorded(ref, read, elsewhere(ref.url), digests.get(ref.option))

    found, size = [], 0
    for ref in method.assets():
        found.append(_read(ref, wherever, table))
        size += len(found[-1].data) if ref.kind == "image" else 0
        if size > _MOST_BYTES:
            reason = (
                f"with the pictures before it, is more than {_MOST_BYTES:,} bytes, which every worker keeps; "
                f"smaller copies do as well, since styles are looked at in some hundred pixels"
            )
            raise OptionError(f"{table}.{ref.option}", ref.url, reason=reason)
    return found


def by_url(assets: Iterable[Asset]) -> Mapping[str, bytes]:
    return {asset.url: asset.data for asset in assets}


def is_own(ref: AssetRef) -> bool:
    """Whether a file of weights is its user's, and neither published nor one that comes along."""
    from nst.features.weights import is_published

    return ref.kind == "weights" and not ref.url.startswith(PREFIX) and not is_published(ref.url)


def check_weights(method: Method, assets: Iterable[Asset]) -> None:
    """Have a method read weights that its user named as each of its workers will.

    Raises:
        OptionError: they are of another network, or as of the method's `build`.
    """
    own = [ref for ref in method.assets() if is_own(ref)]
    if not own:
        return
    import torch

    from nst.stylizer import AdaptableMethod

    data, device = by_url(assets), torch.device("cpu")
    try:
        method.build(data, device)
        if isinstance(method, AdaptableMethod) and method.adapt_steps:
            method.adaptation(data, device, 0)
    except OptionError as error:
        raise error.within("method") from error
    except WeightsError as error:
        raise named_by_option(error, own, "method") from error


def named_by_option(error: WeightsError, own: Sequence[AssetRef], table: str) -> OptionError | WeightsError:
    """What to raise for weights that do not fit: it names the option, if there is only one that it can be."""
    if len(own) != 1:
        return error
    return OptionError(f"{table}.{own[0].option}", own[0].url, reason=str(error))


def _recorded(ref: AssetRef, read: Callable[[str, str], bytes], other: str | None, digest: str | None) -> bytes:
    """The bytes of an asset: those with the digest on record, wherever they are, or else those at its place."""
    found, errors = [], []
    for place in (ref.url, other):
        try:
            found.extend([] if place is None else [read(ref.kind, place)])
        except OSError as error:
            errors.append(error)
    if not found:
        raise errors[0]  # and not asked again: a store that is away is waited for until the deadline
    return next((data for data in found if hashlib.sha256(data).hexdigest() == digest), found[0])


def _read(ref: AssetRef, read: Callable[[AssetRef], bytes], table: str) -> Asset:
    option = f"{table}.{ref.option}"
    try:
        data = read(ref)
    except OSError as error:
        raise OptionError(option, ref.url, reason=why_unreadable(error)) from error
    digest = hashlib.sha256(data).hexdigest()
    if ref.sha256 is not None and digest != ref.sha256.lower():
        raise OptionError(option, ref.url, reason=f"its SHA-256 is {digest}, expected {ref.sha256}")
    if ref.kind == "image":
        from nst.images.codec import decode_image

        try:
            decode_image(data)
        except ImageError as error:
            reason = "is no picture" if isinstance(error, DecodeError) else "cannot be used"
            raise OptionError(option, ref.url, reason=f"{reason}: {error}") from error
    if ref.kind == "weights":
        from nst.features import read_state_dict

        try:
            read_state_dict(data)
        except WeightsError as error:
            raise OptionError(option, ref.url, reason=str(error)) from error
    return Asset(option=ref.option, url=ref.url, data=data, sha256=digest)


def _bytes(kind: str, url: str, storage: StorageOptions) -> bytes:
    if url.startswith(PREFIX):
        return style_bytes(url)
    if kind == "weights":
        from nst.features.weights import is_published, published_bytes

        if is_published(url):
            return published_bytes(url)
    return read_url(url, storage)
