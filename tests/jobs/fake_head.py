"""A server that answers like the jobs API of a Ray cluster's head, and cuts its connections as it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

LOG = "".join(f"line {number}: photographs é\n" for number in range(12))
Tail = int | str
"""How a connection that follows the log ends: refused with a status, "cut N" after N characters, "silent"."""


class FakeHead:
    """Knows submissions by their ids; all have said `LOG`. Ends each as `end` says once `tails` are used up."""

    def __init__(self, *tails: Tail, end: int = 0) -> None:
        self.tails = list(tails)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.stopped: list[str] = []
        self.status = 200
        """Of all answers, where it is not this."""
        self._end = end

    def add(self, id: str, **values: Any) -> None:
        self.jobs[id] = {
            "type": "SUBMISSION",
            "submission_id": id,
            "entrypoint": "",
            "status": "RUNNING",
            **values,
        }

    def end(self, id: str, code: int) -> None:
        status = "STOPPED" if code == 75 else "FAILED" if code else "SUCCEEDED"
        self.jobs[id] |= {"status": status, "driver_exit_code": code}

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._refuse], client_max_size=2**30)
        routes: list[tuple[str, str, Callable[[web.Request], Any]]] = [
            ("GET", "/api/version", self._version),
            ("GET", "/api/jobs/", self._list),
            ("POST", "/api/jobs/", self._submit),
            ("GET", "/api/jobs/{id}", self._info),
            ("GET", "/api/jobs/{id}/logs", self._logs),
            ("GET", "/api/jobs/{id}/logs/tail", self._tail),
            ("POST", "/api/jobs/{id}/stop", self._stop),
            ("GET", "/api/packages/{protocol}/{name}", self._version),  # it is here already
        ]
        application.add_routes([web.route(method, path, handler) for method, path, handler in routes])
        return application

    @web.middleware
    async def _refuse(self, request: web.Request, handler: Any) -> web.StreamResponse:
        id = request.match_info.get("id")
        status = self.status if id is None or id in self.jobs else 404
        if status != 200:
            return web.Response(status=status, text=f"no: {status}")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0"})

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response(list(self.jobs.values()))

    async def _submit(self, request: web.Request) -> web.Response:
        asked = await request.json()
        id = asked["submission_id"]
        self.add(id, entrypoint=asked["entrypoint"])
        return web.json_response({"job_id": id, "submission_id": id})

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response(self.jobs[request.match_info["id"]])

    async def _logs(self, _: web.Request) -> web.Response:
        return web.json_response({"logs": LOG})

    async def _stop(self, request: web.Request) -> web.Response:
        self.stopped.append(request.match_info["id"])
        self.end(request.match_info["id"], 75)
        return web.json_response({"stopped": True})

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        tail = self.tails.pop(0) if self.tails else "cut -1"
        if not self.tails:
            self.end(request.match_info["id"], self._end)
        if isinstance(tail, int):
            if tail in (401, 404):
                self.status = tail
            return web.Response(status=tail)
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        if tail == "silent":
            await answer.receive()
            return answer
        text = LOG[: int(tail.removeprefix("cut "))]
        for start in range(0, len(text), 50):
            await answer.send_str(text[start : start + 50])
        await asyncio.sleep(0.1)
        assert request.transport is not None
        request.transport.abort()
        return answer

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Gives the address."""
        loop, ready = asyncio.new_event_loop(), threading.Event()
        runner = web.AppRunner(self._application(), shutdown_timeout=0.1)

        async def start() -> None:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            ready.set()

        def serve() -> None:
            loop.run_until_complete(start())
            loop.run_forever()
            loop.run_until_complete(runner.cleanup())
            loop.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert ready.wait(30)
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
