"""What requests of the Durable Streams Yjs protocol may say, and how its refusals look. Pure.

A document is `/v1/yjs/{service}/docs/{path}`: the service is the tenant, the path is narrower than names are
elsewhere. Errors are `{"error": {"code", "message", "reason"}}`: `code` is the protocol's word, `reason` our own stable
one. Two statuses differ from those of our errors, because the stock provider sends again without a pause what is
answered 409, and without an end what is answered 403.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Final
from urllib.parse import unquote_to_bytes, urlencode

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ydoc_store.errors import (
    AheadOfLog,
    ClientFault,
    DocumentDeleted,
    DocumentRenamed,
    EpochChanged,
    Forbidden,
    InvalidRequest,
    LimitExceeded,
    NoSuchDocument,
    ProducerGap,
    ProducerStale,
    ServerFailed,
    ServerFault,
    SlowMember,
    TokenEnded,
    TooLarge,
    Unauthenticated,
    YdocError,
)
from ydoc_store.yjs.lib0 import Malformed, frames

PREFIX: Final = "/v1/yjs/"
PATH_CHARACTERS_MAX: Final = 256
STREAM_NAME_CHARACTERS_MAX: Final = 64
DEFAULT_AWARENESS: Final = "default"

_PATH: Final = re.compile(r"[A-Za-z0-9_\-/]+")
_STREAM_NAME: Final = re.compile(r"[A-Za-z0-9_\-.]+")
_SLASHES: Final = re.compile(r"/{2,}")

# Everything of ours that is none of these is a 400, or a 503 where it is not the sender's fault.
_ANSWERS: Final[Mapping[type[YdocError], tuple[int, str]]] = {
    Unauthenticated: (401, "UNAUTHORIZED"),
    TokenEnded: (401, "UNAUTHORIZED"),
    Forbidden: (403, "FORBIDDEN"),
    NoSuchDocument: (404, "DOCUMENT_NOT_FOUND"),
    DocumentDeleted: (404, "DOCUMENT_NOT_FOUND"),
    DocumentRenamed: (404, "DOCUMENT_NOT_FOUND"),
    EpochChanged: (404, "DOCUMENT_NOT_FOUND"),
    AheadOfLog: (400, "INVALID_REQUEST"),
    ProducerStale: (403, "PRODUCER_EPOCH_STALE"),
    ProducerGap: (409, "PRODUCER_GAP"),
    SlowMember: (408, "INVALID_REQUEST"),
    TooLarge: (413, "INVALID_REQUEST"),
    LimitExceeded: (429, "RATE_LIMITED"),
    ServerFailed: (500, "INTERNAL_ERROR"),
}


class Refused(ClientFault):
    """A refusal in the protocol's own words, for what our errors have no word for."""

    def __init__(self, status: int, word: str, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.word = word
        self.headers = headers or {}


def error_response(
    status: int, code: str, message: str, reason: str, headers: Mapping[str, str] | None = None
) -> Response:
    body = {"error": {"code": code, "message": message, "reason": reason}}
    fixed = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(orjson.dumps(body), status, {**fixed, **(headers or {})}, "application/json")


def response_to(error: YdocError) -> Response:
    """How one of our errors is told."""
    if isinstance(error, Refused):
        return error_response(error.status, error.word, str(error), error.word.lower(), error.headers)
    other = (503, "UNAVAILABLE") if isinstance(error, ServerFault) else (400, "INVALID_REQUEST")
    status, code = next((told for kind, told in _ANSWERS.items() if isinstance(error, kind)), other)
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, ProducerStale):
        headers["Producer-Epoch"] = str(error.current_epoch)
    elif isinstance(error, ProducerGap):
        headers["Producer-Expected-Seq"] = str(error.expected)
        headers["Producer-Received-Seq"] = str(error.received)
    return error_response(status, code, str(error), error.code, headers)


def split_path(raw_path: bytes) -> tuple[str, str]:
    """The service and the document's name in an undecoded request path. Raises InvalidRequest.

    Slashes in a row count as one, as the protocol has it; nothing else is made fit.
    """
    rest = raw_path.partition(PREFIX.encode())[2]
    service, _, path = rest.partition(b"/docs/")
    return _decoded(service, "service") or _no("service"), parse_path(_decoded(path, "path"))


def parse_path(path: str) -> str:
    """A document's path. Raises InvalidRequest."""
    name = _SLASHES.sub("/", path)
    if not name or len(name) > PATH_CHARACTERS_MAX or _PATH.fullmatch(name) is None:
        raise InvalidRequest(
            f"a document's path is 1 to {PATH_CHARACTERS_MAX} of A-Z, a-z, 0-9, '_', '-' and '/', and no '.'"
        )
    if name.startswith("/") or name.endswith("/"):
        raise InvalidRequest("a document's path begins and ends with a name")
    return name


def parse_stream_name(name: str) -> str:
    """An awareness stream's name. Raises InvalidRequest."""
    if len(name) > STREAM_NAME_CHARACTERS_MAX or _STREAM_NAME.fullmatch(name) is None or set(name) == {"."}:
        raise InvalidRequest(f"an awareness stream's name is 1 to {STREAM_NAME_CHARACTERS_MAX} of A-Z, a-z, 0-9, '_-.'")
    return name


def redirected(request: Request, offset: str) -> str:
    """Where the same request is to go for this offset: the path as it came, under whatever root, other parameters
    too."""
    others = [(key, value) for key, value in request.query_params.multi_items() if key != "offset"]
    path: bytes = request.scope["raw_path"]
    return f"{path.decode('latin-1').partition('?')[0]}?{urlencode([*others, ('offset', offset)])}"


def single(request: Request, parameter: str) -> str | None:
    """A parameter that is given once, or None. Raises InvalidRequest where it is given twice."""
    found = request.query_params.getlist(parameter)
    if len(found) > 1:
        raise InvalidRequest(f"{parameter!r} is given twice")
    return found[0] if found else None


def read_frames(body: bytes, what: str, frames_max: int) -> list[bytes]:
    """What a body brings, at least one `what`. Raises InvalidRequest, TooLarge."""
    try:
        # Not one more is read than may come: a large body of empty frames would hold up everyone for seconds.
        found = list(islice(frames(body), frames_max + 1))
    except Malformed as error:
        raise InvalidRequest(f"the body is no run of frames, each a length and {what}: {error}") from None
    if not found:
        raise InvalidRequest("the body is empty: send one or more frames")
    if len(found) > frames_max:
        raise TooLarge(f"more frames in one body than {frames_max:,}")
    return found


def _decoded(raw: bytes, what: str) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return _no(what)


def _no(what: str) -> str:
    raise InvalidRequest(f"the {what} in this path is none: a document is {PREFIX}SERVICE/docs/PATH")
