"""`nst view`: a server for one person on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Sequence

from jobs.errors import UsageError
from jobs.stores.store import Store
from jobs.view.watch import Watch
from nst.errors import OptionError

__all__ = ["serve"]

_LOOPBACK = "127.0.0.1"


def serve(store: Store, *, port: int, browser: bool, reach: Sequence[str] = ()) -> None:
    """Show the job in `store` at an address that is printed, until SIGINT or SIGTERM.

    Args:
        port: 0: any free one.
        browser: whether one is to be opened there.
        reach: words of a command line that say how the store is reached.

    Raises:
        OptionError: `port` cannot be had.
        UsageError: there is no job of photographs, or what it takes is not installed.
    """
    try:
        import uvicorn

        from jobs.view.app import COOKIE, build_app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("starlette", "uvicorn"):
            raise
        raise UsageError(
            f"nst view needs {missing}, which is not installed: pip install 'nst[view]'"
        ) from error
    watch, token = Watch(store), secrets.token_urlsafe(24)
    with _listening(port) as listener, watch:
        number = listener.getsockname()[1]
        url = f"http://{_LOOPBACK}:{number}/?token={token}"
        # Cookies of one host are of all its ports: several views must not sign each other out.
        app = build_app(watch, token, cookie=f"{COOKIE}-{number}", reach=reach)
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
        print(f"{store.url} is shown at {url} until Ctrl-C", flush=True)
        if browser and _has_screen():
            webbrowser.open(url)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    # The protocol is named: asyncio sends small packets at once on sockets of that one alone, and without it
    # every answer, being two of them, waits 40 ms for the first one's receipt.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_LOOPBACK, port))
        listener.listen(128)  # so that a browser that is quicker than the server waits
    except (OSError, OverflowError) as error:
        listener.close()
        raise OptionError("--port", port, reason=f"cannot be had: {error}; 0 takes a free one") from error
    return listener


def _has_screen() -> bool:
    """Without one, Python would open a browser for terminals."""
    return not sys.platform.startswith("linux") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
