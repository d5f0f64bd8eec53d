"""The registry: `kind` in a job file to the method's class. Adding a method is one file and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from nst.errors import OptionError

if TYPE_CHECKING:
    from nst.stylizer import Method

__all__ = ["METHODS", "Registry"]

T = TypeVar("T")


class Registry(Mapping[str, type[T]], Generic[T]):
    """Classes by kind, read-only; a class's file is imported when it is first asked for.

    Args:
        places: `module:class` by kind.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, kind: str) -> type[T]:
        """Raises OptionError: there is no such kind."""
        if kind not in self._places:
            raise OptionError("kind", kind, choices=self._places)
        module, _, name = self._places[kind].partition(":")
        found: Any = getattr(importlib.import_module(module), name)
        return found  # type: ignore[no-any-return]

    def __contains__(self, kind: object) -> bool:
        return kind in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


METHODS: Registry[Method] = Registry(
    {
        "feed_forward": "nst.feed_forward.method:FeedForward",
        "style_transfer": "nst.style_transfer.method:StyleTransfer",
        "deepdream": "nst.deepdream.method:DeepDream",
        "cyclegan": "nst.cyclegan.method:CycleGAN",
        "modulated": "nst.modulated.method:Modulated",
    }
)
