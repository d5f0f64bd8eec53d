"""The registry: `kind` in a job file to the method's class. Adding a method is one file and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nst.errors import OptionError

if TYPE_CHECKING:
    from nst.stylizer import Method

__all__ = ["METHODS"]


class _Registry(Mapping[str, "type[Method]"]):
    """Read-only; a method's file is imported when it is first asked for."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, kind: str) -> type[Method]:
        if kind not in self._places:
            raise OptionError("kind", kind, choices=self._places)
        module, _, name = self._places[kind].partition(":")
        method: Any = getattr(importlib.import_module(module), name)
        return method  # type: ignore[no-any-return]

    def __contains__(self, kind: object) -> bool:
        return kind in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


METHODS: Mapping[str, type[Method]] = _Registry(
    {
        "style_transfer": "nst.style_transfer.method:StyleTransfer",
        "deepdream": "nst.deepdream.method:DeepDream",
        "cyclegan": "nst.cyclegan.method:CycleGAN",
        "modulated": "nst.modulated.method:Modulated",
    }
)
