"""A real browser, driven through Chromium's own protocol: what a page does, says and asks for."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

__all__ = ["Page", "open_page"]

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0"),
)
_WAIT_S = 120.0


class Page:
    """A tab. All that it logs and all that it asks for is noted."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.errors: list[str] = []
        """Messages of its console that are errors or warnings, and exceptions."""
        self.requests: list[str] = []
        """URLs."""

    async def listen(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif told["method"] == "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])
            elif told["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(told["params"]["exceptionDetails"])[:500])
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] in (
                "error",
                "warning",
            ):
                self.errors.append(f"{told['params']['entry']['text']} {told['params']['entry'].get('url')}")
            elif told["method"] == "Runtime.consoleAPICalled" and told["params"]["type"] in (
                "error",
                "warning",
            ):
                self.errors.append(json.dumps(told["params"]["args"])[:500])
            elif told["method"] == "Page.javascriptDialogOpening":
                self.errors.append(f"dialog: {told['params']['message']}")

    async def call(self, method: str, **params: Any) -> Any:
        """A command of the protocol, and its result."""
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        told = await asyncio.wait_for(answer, _WAIT_S)
        assert "error" not in told, (method, told)
        return told["result"]

    async def do(self, script: str) -> Any:
        """The value of an expression; promises are waited for."""
        told = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, (script, told["exceptionDetails"])
        return told["result"].get("value")

    async def until(self, script: str) -> float:
        """Wait until an expression is true; gives the seconds that it took."""
        began = time.monotonic()
        while not await self.do(script):
            assert time.monotonic() - began < _WAIT_S, f"{script}; {self.errors}"
            await asyncio.sleep(0.03)
        return time.monotonic() - began

    async def press(self, key: str) -> None:
        """Press and release a key, by its name in events."""
        text = {"text": key} if len(key) == 1 else {}
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        text = {"text": "\r"} if key == "Enter" else text
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    async def click(self, selector: str) -> None:
        """Press and release the mouse in the middle of the first element there."""
        x, y = await self.middle(selector)
        await self.drag(x, y, x, y)

    async def middle(self, selector: str) -> tuple[float, float]:
        """Where the first element there has its middle, in the window; it is brought into sight."""
        found = f"document.querySelector({json.dumps(selector)})"
        await self.do(f"{found}.scrollIntoView({{block: 'nearest', inline: 'center'}})")
        box = await self.do(f"{found}.getBoundingClientRect().toJSON()")
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    async def drag(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """Press the mouse at a place, and release it at another."""
        button = {"button": "left", "clickCount": 1}
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        await self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **button)
        if (x, y) != (to_x, to_y):
            await self.call(
                "Input.dispatchMouseEvent", type="mouseMoved", x=to_x, y=to_y, buttons=1, button="left"
            )
        await self.call("Input.dispatchMouseEvent", type="mouseReleased", x=to_x, y=to_y, **button)

    async def shoot(self, path: Path) -> None:
        """A picture of what is seen, as PNG."""
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot"))["data"]))


@asynccontextmanager
async def open_page(width: int, height: int, *, phone: bool = False, dark: bool = False) -> AsyncIterator[Page]:
    """An empty tab of this size, in a browser of its own; the test is skipped where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed (make test-browser)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started = await asyncio.create_subprocess_exec(
            *(program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            address = await _address(Path(folder))
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(address, max_msg_size=0) as socket,
            ):
                page = Page(socket)
                listener = asyncio.create_task(page.listen())
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.call(f"{domain}.enable")
                await page.call(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=height,
                    deviceScaleFactor=1,
                    mobile=phone,
                )
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                await page.call("Emulation.setEmulatedMedia", features=[scheme])
                yield page
                listener.cancel()
        finally:
            with suppress(ProcessLookupError):
                started.terminate()
            await started.wait()


async def _address(folder: Path) -> str:
    """Where the browser's first tab is reached, which it says in its folder."""
    said = folder / "DevToolsActivePort"
    for _ in range(int(_WAIT_S / 0.1)):
        if said.exists() and len(lines := said.read_text().split()) == 2:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{lines[0]}/json") as told,
            ):
                tabs = [tab for tab in await told.json() if tab["type"] == "page"]
            if tabs:
                return str(tabs[0]["webSocketDebuggerUrl"])
        await asyncio.sleep(0.1)
    raise AssertionError("chromium does not start")
