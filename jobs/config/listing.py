"""Which of the files that a job is given are its photographs."""

from __future__ import annotations

from dataclasses import dataclass

from nst.errors import OptionError

__all__ = ["STANDARD_LISTING", "ListingOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ListingOptions:
    """Which of the files at `photos` are photographs."""

    exclude: tuple[str, ...] = ()
    """Globs of files and folders that are left out of a folder: `*.png` or `rejects` wherever they are, with a
    slash from the folder on, where `**` stands for any folders: `2019/**/raw`."""
    hidden: bool = False
    """Whether hidden files and folders, thumbnails and other helpers of programs, and the folders of other jobs
    and of previews are taken too."""
    not_in: tuple[str, ...] = ()
    """Folders or bucket prefixes of jobs whose photographs are left out."""
    url_column: str = "url"
    """Name of the manifest's column that says where each photograph is."""
    separator: str | None = None
    """Character between the columns of a .csv or .tsv manifest; None: a comma, or a tab in .tsv."""

    def __post_init__(self) -> None:
        if any(not glob.strip("/") for glob in self.exclude):
            raise OptionError("exclude", list(self.exclude), reason="a glob must name something")
        if not self.url_column:
            raise OptionError("url_column", self.url_column, reason="a column has a name")
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise OptionError("separator", self.separator, reason="must be one character, e.g. ';'")


STANDARD_LISTING = ListingOptions()
