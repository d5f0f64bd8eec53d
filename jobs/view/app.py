"""The pages and the interface of `nst view`. Whoever asks must know the token; nobody names a path."""

from __future__ import annotations

import json
import secrets
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args
from urllib.parse import parse_qs

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.ledger.marks import MARK_NAMES, Mark
from jobs.view.index import Array, Rows
from jobs.view.page import static
from jobs.view.photos import Photos, Shown, Side
from jobs.view.query import ORDERS, Query, headings, places, row_json
from jobs.view.watch import Watch, job_json
from nst.errors import ImageError, NstError, OptionError
from nst.recent import Recent

__all__ = ["COOKIE", "HOSTS", "build_app"]

HOSTS = ("127.0.0.1", "localhost")
COOKIE = "nst-view"
_MOST_ROWS = 500
_MOST_BODY = 1 << 20
_KEPT_ORDERS = 8
_STATIC = {
    "view.css": "text/css",
    "viewer.js": "text/javascript",
    "server.js": "text/javascript",
    "view.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def build_app(watch: Watch, token: str, *, cookie: str = COOKIE, reach: Sequence[str] = ()) -> Starlette:
    """What answers a browser.

    Args:
        token: who knows it may ask: `/?token=...`, and after that a cookie.
        cookie: name of the cookie; those of one host are of all its ports.
        reach: words of a command line that say how the job's store is reached.
    """
    view = _View(watch, Photos(watch.index), reach)
    routes = [
        Route("/", lambda request: view.page(request, cookie, token)),
        Route("/static/{name}", view.static),
        Route("/api/job", view.job),
        Route("/api/rows", view.rows),
        Route("/api/marks", view.marks, methods=["POST"]),
        Route("/thumbnail/{row:int}/{side}", view.thumbnail),
        Route("/full/{row:int}/{side}", view.full),
    ]
    middleware = [
        Middleware(_SafeHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
        Middleware(_KnowsToken, token=token, cookie=cookie),
    ]
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={OptionError: _asked_wrongly, NstError: _unreadable, OSError: _unreadable},
    )


@dataclass(slots=True)
class _View:
    watch: Watch
    photos: Photos
    reach: Sequence[str]
    _orders: Recent[tuple[int, int, Query], Array] = field(default_factory=lambda: Recent(_KEPT_ORDERS))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def page(self, request: Request, cookie: str, token: str) -> Response:
        answer = Response(static("index.html"), media_type="text/html", headers={"cache-control": "no-store"})
        if "token" in request.query_params:
            answer.set_cookie(cookie, token, httponly=True, samesite="strict")
        return answer

    def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _STATIC:
            return PlainTextResponse("there is no such file", 404)
        return Response(static(name), media_type=_STATIC[name], headers={"cache-control": "no-cache"})

    def job(self, _: Request) -> Response:
        rows = self.watch.index.rows()
        told = job_json(self.watch, rows)
        return JSONResponse({**told, "version": self._version(rows), "redo": self._redo()})

    def rows(self, request: Request) -> Response:
        asked = request.query_params
        query = Query(
            search=asked.get("search", ""),
            folder=asked.get("folder", ""),
            status=asked.get("status", ""),
            mark=asked.get("mark", ""),
            sort=asked.get("sort", ORDERS[0]),
            descending=asked.get("descending") == "1",
        )
        first, count = _number(asked, "first", 0), min(_number(asked, "count", 100), _MOST_ROWS)
        rows, marks = self.watch.index.rows(), self.watch.marks
        version, order = self._version(rows), self._order(rows, marks, query)
        shown = [self._row(rows, int(place), marks) for place in order[first : first + count]]
        told = {"version": version, "total": len(order), "first": first, "rows": shown}
        if asked.get("headings") == "1":
            told["headings"] = headings(rows, order, query)
        if "locate" in asked:  # where a photograph is by now, which may have been done again
            found = np.flatnonzero(order == rows.place_of(asked["locate"]))
            told["located"] = int(found[0]) if len(found) else None
        return JSONResponse(told)

    def _row(self, rows: Rows, place: int, marks: Mapping[str, Mark]) -> dict[str, Any]:
        return {**row_json(rows, place, marks), "again": self.watch.index.parts[int(rows.part[place])].again}

    def _redo(self) -> str:
        """The command that does again what is marked so; its last word is an example."""
        record = self.watch.record
        examples = {"strength": "method.strength=0.5", "style_scale": "method.style_scale=2"}
        fitting = [example for name, example in examples.items() if name in record.method]
        example = (*fitting, f"seed={int(record.job.get('seed', 0)) + 1}")[0]
        words = ("nst", "redo", self.watch.store.url, "--marked", "again", *self.reach, "--set", example)
        return shlex.join(words)

    def _version(self, rows: Rows) -> str:
        return f"{rows.version}.{self.watch.marks_version}"

    def _order(self, rows: Rows, marks: Mapping[str, Mark], query: Query) -> Array:
        name = rows.version, self.watch.marks_version if query.mark else 0, query
        with self._lock:  # of those who ask for the same at once, one sorts
            return self._orders.get(name, lambda: places(rows, marks, query))

    async def marks(self, request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":
            return PlainTextResponse("content-type must be application/json", 415)
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > _MOST_BODY:
                return PlainTextResponse("too many at once", 413)
        return await run_in_threadpool(self._mark, data)

    def _mark(self, data: bytes) -> Response:
        try:
            asked = json.loads(data)
            numbers, mark = asked["rows"], asked["mark"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return PlainTextResponse("rows and mark are required", 400)
        if not isinstance(numbers, list) or not all(type(each) is int for each in numbers):
            return PlainTextResponse("rows must be a list of whole numbers", 400)
        if mark is not None and mark not in MARK_NAMES:
            raise OptionError("mark", mark, choices=list(MARK_NAMES))
        rows = self.watch.index.rows()
        found = [rows.place(number) for number in numbers]
        keys = [rows.text("key", place) for place in found if place is not None]
        self.watch.mark([key for key in keys if key is not None], mark)
        return JSONResponse({"version": self._version(rows)})

    def thumbnail(self, request: Request) -> Response:
        return self._picture(request, small=True)

    def full(self, request: Request) -> Response:
        return self._picture(request, small=False)

    def _picture(self, request: Request, *, small: bool) -> Response:
        rows, side = self.watch.index.rows(), request.path_params["side"]
        place = rows.place(request.path_params["row"])
        if place is None or side not in get_args(Side):
            return PlainTextResponse("there is no such photograph", 404)
        headers = {"etag": f'"{self.photos.tag(rows, place, side, small=small)}"', "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        make: Callable[[Rows, int, Side], Shown] = self.photos.thumbnail if small else self.photos.full
        try:
            shown = make(rows, place, side)
        except (ImageError, FileNotFoundError):
            if side == "after":
                raise
            return Response(status_code=204)  # it is gone, or never was a photograph: no fault of the page's
        return Response(shown.data, media_type=shown.type, headers=headers)


def _number(asked: Mapping[str, str], name: str, default: int) -> int:
    value = asked.get(name, str(default))
    if not (value.isascii() and value.isdecimal() and len(value) < 16):
        raise OptionError(name, value, reason="must be a whole number, 0 or more")
    return int(value)


def _asked_wrongly(_: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), 400)


def _unreadable(_: Request, error: Exception) -> Response:
    """Of a photograph or a picture, or of the store, which may answer the next time."""
    return PlainTextResponse(str(error), 404 if isinstance(error, FileNotFoundError) else 502)


class _KnowsToken:
    """Lets through who knows the token."""

    def __init__(self, app: ASGIApp, token: str, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._known(scope):
            text = "open the address that `nst view` has printed: it has a token in it"
            await PlainTextResponse(text, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        asked = parse_qs(scope["query_string"].decode("latin-1")) if scope["path"] == "/" else {}
        given: Any = (*asked.get("token", ()), Request(scope).cookies.get(self._cookie, ""))
        return any(secrets.compare_digest(each.encode(), self._token.encode()) for each in given)


class _SafeHeaders:
    """Lets the page load what is ours, and nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app(scope, receive, with_headers)
