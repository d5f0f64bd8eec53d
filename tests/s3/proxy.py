"""A small HTTP proxy that does harm between an S3 client and its server: by chance, seeded, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import unquote

__all__ = ["Fault", "FaultProxy", "Kind"]

Kind = Literal["503", "500", "502", "reset", "lost", "cut", "request cut", "stall"]
"""`reset`: before the server saw it. `lost`: done, the answer thrown away. `cut`: half of the answer's body.
`request cut`: half of the request's body reaches the server. `stall`: nothing ever comes. `502`: as proxies say
it, in HTML."""


@dataclass(slots=True)
class Fault:
    """Harm to the requests that match."""

    kind: Kind
    share: float = 1.0
    """Of the requests that match."""
    method: str = ".*"
    path: str = ".*"
    times: int | None = None
    """At most; None: without end."""
    done: int = 0


@dataclass(slots=True)
class FaultProxy:
    """Forwards to `127.0.0.1:upstream`. Change `faults` at any time."""

    upstream: int
    faults: list[Fault] = field(default_factory=list)
    seed: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    """By method."""
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Requests by method and path."""
    port: int = 0
    _random: random.Random = field(default_factory=random.Random)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _ended: asyncio.Event = field(init=False)
    _thread: threading.Thread = field(init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._random.seed(self.seed)
        started = threading.Event()

        async def listen() -> None:
            self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20)
            self.port = server.sockets[0].getsockname()[1]
            started.set()
            async with server:
                await self._ended.wait()
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()

        self._thread = threading.Thread(target=lambda: asyncio.run(listen()), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _harm(self, method: str, path: str) -> Kind | None:
        for fault in self.faults:
            if fault.times is not None and fault.done >= fault.times:
                continue
            if not (re.fullmatch(fault.method, method) and re.search(fault.path, path)):
                continue
            if self._random.random() < fault.share:
                fault.done += 1
                return fault.kind
        return None

    async def _serve(self, client_in: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        server: asyncio.StreamWriter | None = None
        try:
            while True:
                head = await client_in.readuntil(b"\r\n\r\n")
                method, path, _ = head.decode("latin1").split(" ", 2)
                self.requests[method] += 1
                self.places[method, unquote(path.partition("?")[0])] += 1
                harm = self._harm(method, path)
                if harm == "reset":
                    return _reset(client)
                if b"100-continue" in head.lower():
                    client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head)
                body = await _body(client_in, head)
                if harm == "stall":
                    await asyncio.sleep(3600)
                if harm in ("503", "500", "502"):
                    client.write(_refusal(harm, method))
                    await client.drain()
                    continue
                if server is None:
                    server_in, server = await asyncio.open_connection("127.0.0.1", self.upstream, limit=1 << 20)
                server.write(head + (body[: len(body) // 2] if harm == "request cut" else body))
                await server.drain()
                if harm == "request cut" and body:
                    _reset(server)
                    return _reset(client)
                answer = await server_in.readuntil(b"\r\n\r\n")
                while answer.split(b" ", 2)[1] == b"100":
                    answer = await server_in.readuntil(b"\r\n\r\n")
                bare = method == "HEAD" or answer.split(b" ", 2)[1] in (b"204", b"304")
                content = b"" if bare else await _body(server_in, answer)
                if harm == "lost":
                    return _reset(client)
                if harm == "cut" and content:
                    client.write(answer + content[: len(content) // 2])
                    await client.drain()
                    await asyncio.sleep(0.02)
                    return _reset(client)
                client.write(answer + content)
                await client.drain()
                if re.search(rb"(?i)\r\nconnection: *close", answer):
                    server.close()
                    server = None
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            _reset(client)  # what one end does, the other sees
        finally:
            for writer in (server, client):
                if writer is not None:
                    writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """As it came, chunks and all."""
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        parts = []
        while True:
            line = await reader.readline()
            size = int(line.split(b";")[0], 16)
            parts.append(line + await reader.readexactly(size + 2))
            if size == 0:
                return b"".join(parts)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return await reader.readexactly(int(length[1])) if length else b""


def _refusal(status: str, method: str) -> bytes:
    code = {"503": "SlowDown", "500": "InternalError"}.get(status)
    error = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
    body = (error if code else "<html><body>Bad Gateway<hr>nginx</body></html>").encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + (b"" if method == "HEAD" else body)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection so that the other side cannot take it for a whole answer."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
