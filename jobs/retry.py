"""Store calls that fail for a moment are made again: capped exponential backoff, full jitter, a deadline.

Clients have retries of their own, which differ, multiply (botocore's with s3fs's) and know no deadline.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Backoff", "is_transient"]

T = TypeVar("T")

# 503 SlowDown reaches us as EBUSY, 500 as EREMOTEIO (s3fs).
_TRANSIENT_ERRNO = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.EINTR,
    errno.ENETDOWN,
    errno.ENETRESET,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.EREMOTEIO,
    errno.ETIMEDOUT,
}
# Of botocore, aiohttp, urllib3: not imported, since stores come and go with what is installed.
_TRANSIENT_NAMES = {
    "ClientConnectionError",
    "ClientConnectorError",
    "ClientOSError",
    "ClientPayloadError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "FSTimeoutError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ProtocolError",
    "ReadTimeoutError",
    "ResponseStreamingError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
}


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed in a moment. What is not known to pass does not."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO:
        return True
    return any(base.__name__ in _TRANSIENT_NAMES for base in type(error).__mro__)


@dataclass(slots=True)
class Backoff:
    """Makes calls until they succeed, fail for good, or the deadline is over."""

    deadline_s: float = 90.0
    """No attempt begins later than this after the first."""
    first_s: float = 0.2
    longest_s: float = 10.0
    retries: int = 0
    """Attempts so far that were not the first."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __call__(self, call: Callable[[], T]) -> T:
        """The call's value.

        Raises:
            OSError: it failed for good, or too often; the errors of clients that are not OSErrors become one.
        """
        began, attempt = self.clock(), 0
        while True:
            try:
                return call()
            except Exception as error:
                pause = random.uniform(0, min(self.longest_s, self.first_s * 2**attempt))
                spent = self.clock() - began
                if not is_transient(error) or spent + pause > self.deadline_s:
                    if attempt:
                        error.add_note(f"after {attempt + 1} attempts in {spent:.0f} s")
                    if isinstance(error, OSError):
                        raise
                    raise OSError(f"{type(error).__name__}: {error}") from error
            attempt += 1
            self.retries += 1
            self.sleep(pause)
