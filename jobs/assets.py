"""What a method needs besides photographs: read once by the driver, checked, shared by all workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

from jobs.filesystems import STANDARD_STORAGE, StorageOptions, read_url
from nst.errors import DecodeError, ImageError, OptionError, WeightsError

if TYPE_CHECKING:
    from nst.stylizer import AssetRef

__all__ = ["Asset", "by_url", "read_assets"]


class NeedsAssets(Protocol):
    """A method, or what else has files."""

    def assets(self) -> Sequence[AssetRef]: ...


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset's bytes, verified."""

    option: str
    url: str
    data: bytes
    sha256: str


def read_assets(
    method: NeedsAssets,
    storage: StorageOptions = STANDARD_STORAGE,
    *,
    table: str = "method",
) -> list[Asset]:
    """Read and check every asset of `method`, whose options are those of `table`.

    Raises:
        OptionError: one is not there, is no picture, or has another digest than the option says.
        WeightsError: published weights are not to be had.
    """
    read = cache(lambda kind, url: _bytes(kind, url, storage))  # once: its digests are those of its one content
    return [_read(ref, read, table) for ref in method.assets()]


def by_url(assets: Iterable[Asset]) -> Mapping[str, bytes]:
    return {asset.url: asset.data for asset in assets}


def _read(ref: AssetRef, read: Callable[[str, str], bytes], table: str) -> Asset:
    option = f"{table}.{ref.option}"
    try:
        data = read(ref.kind, ref.url)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            reason = "there is no such file"
        else:
            reason = f"cannot be read: {error.strerror or error}"
        raise OptionError(option, ref.url, reason=reason) from error
    digest = hashlib.sha256(data).hexdigest()
    if ref.sha256 is not None and digest != ref.sha256.lower():
        raise OptionError(option, ref.url, reason=f"its SHA-256 is {digest}, expected {ref.sha256}")
    if ref.kind == "image":
        from nst.images import decode_image

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
    if kind == "weights":
        from nst.features.weights import is_published, published_bytes

        if is_published(url):
            return published_bytes(url)
    return read_url(url, storage)
