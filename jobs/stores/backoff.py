"""Store calls that fail for a moment are made again: capped exponential backoff, full jitter, a deadline.

Clients have retries of their own, which differ, multiply (botocore's with s3fs's) and know no deadline.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Backoff", "Retries", "count_retries", "is_lasting", "is_transient"]

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
    "ResponseParserError",
    "ResponseStreamingError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
}


# What S3 says itself; its errno would not tell. 409 is the answer to one of two create-only writes at once.
_TRANSIENT_CODES = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "XAmzContentSHA256Mismatch",
}
_TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504, *range(520, 528)}
"""Of HTTP: proxies have no code of S3's, and servers codes of their own for it, as MinIO's `SlowDownRead`; the
last ones are Cloudflare's."""
_LASTING_CODES = {
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "NoSuchBucket",
    "NotSignedUp",
    "QuotaExceeded",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "XMinioStorageFull",
}
_LASTING_NAMES = {
    "CredentialRetrievalError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "SSOTokenLoadError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
}


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed in a moment. What is not known to pass does not."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO:
        return True
    return _is(error, _TRANSIENT_NAMES, _TRANSIENT_CODES, _TRANSIENT_STATUS)


def is_lasting(error: BaseException) -> bool:
    """Whether the store says no to whatever it is asked: wrong credentials, no such bucket, no space left."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return True
    return _is(error, _LASTING_NAMES, _LASTING_CODES)


def _is(
    error: BaseException | None, names: set[str], codes: set[str], statuses: Set[int] = frozenset()
) -> bool:
    """By the names of its classes, its S3 code or its HTTP status, or those of what it was raised from."""
    while error is not None:
        code, status = _answer(error)
        if code in codes or status in statuses or any(base.__name__ in names for base in type(error).__mro__):
            return True
        error = error.__cause__
    return False


def _answer(error: BaseException) -> tuple[str | None, int | None]:
    """The S3 code and the HTTP status of a server's answer, as errors of botocore and aiohttp have them."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        about = response.get("ResponseMetadata", {})
        return response.get("Error", {}).get("Code"), about.get("HTTPStatusCode")
    status = getattr(error, "status", None)
    return None, status if isinstance(status, int) else None


class Retries:
    """How many calls had to be made again."""

    def __init__(self) -> None:
        self.count = 0


_counting: ContextVar[Retries | None] = ContextVar("retries", default=None)


@contextmanager
def count_retries() -> Iterator[Retries]:
    """Counts what every `Backoff` makes again in this thread."""
    counted = Retries()
    token = _counting.set(counted)
    try:
        yield counted
    finally:
        _counting.reset(token)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Makes calls until they succeed, fail for good, or the deadline is over."""

    deadline_s: float = 90.0
    """No attempt begins later than this after the first."""
    first_s: float = 0.2
    longest_s: float = 10.0
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
                pause = random.uniform(0, min(self.longest_s, self.first_s * 2 ** min(attempt, 60)))
                spent = self.clock() - began
                if not is_transient(error) or spent + pause > self.deadline_s:
                    if attempt:
                        error.add_note(f"after {attempt + 1} attempts in {spent:.0f} s")
                    if isinstance(error, OSError):
                        raise
                    raise OSError(f"{type(error).__name__}: {error}") from error
            attempt += 1
            counted = _counting.get()
            if counted is not None:
                counted.count += 1
            self.sleep(pause)
