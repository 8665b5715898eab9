"""What a request to `/v1/documents` asks for: which document, in which form, under which conditions. Pure.

A document's name is one percent-encoded segment of the path, `a%2Fb`, what is done with it the next one; so the path is
read as it came. A version is told by an ETag of epoch, seq and database: a restored backup makes no two things equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from ydoc_store.errors import InvalidName, InvalidRequest, NotAcceptable, UnsupportedMediaType
from ydoc_store.names import name_from_raw_path

PREFIX: Final = "/v1/documents/"
UPDATE_TYPE: Final = "application/octet-stream"
JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain"
XML_TYPE: Final = "application/xml"

_ETAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_OURS: Final = re.compile(r"([1-9][0-9]{0,9})-(0|[1-9][0-9]{0,18})-([0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class Version:
    """A document as it is at one seq of one epoch in one database."""

    epoch: int
    seq: int
    database: str

    @property
    def etag(self) -> str:
        return f'"{self.epoch}-{self.seq}-{self.database}"'


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the headers ask of a version; an ETag that is none of ours is None and equals nothing."""

    is_any: bool = False
    match: tuple[Version | None, ...] | None = None
    is_absent: bool = False
    none_match: tuple[Version | None, ...] | None = None


def split_path(raw_path: bytes) -> tuple[str, str]:
    """Name and action of an undecoded path; the action is empty for the document itself. Raises InvalidName."""
    rest = raw_path.partition(PREFIX.encode())[2]
    name, _, action = rest.partition(b"/")
    if not name:
        raise InvalidName("the path names no document")
    return name_from_raw_path(PREFIX.encode() + name, PREFIX.encode()), action.decode("latin-1")


def single(request: Request, parameter: str) -> str | None:
    """A parameter that comes once, None where it does not come. Raises InvalidRequest."""
    found = request.query_params.getlist(parameter)
    if len(found) > 1:
        raise InvalidRequest(f'the parameter "{parameter}" comes {len(found)} times')
    return found[0] if found else None


def only(request: Request, *parameters: str) -> None:
    """Raises InvalidRequest for a parameter that is none of these: a typing error must not go unnoticed."""
    unknown = sorted(set(request.query_params.keys()) - {*parameters, "token"})
    if unknown:
        raise InvalidRequest(f'there is no parameter "{unknown[0][:100]}" here')


def accepted(request: Request, offered: Sequence[str]) -> str:
    """Which of the media types that are offered, the best first, the Accept header likes most. Raises NotAcceptable."""
    header = ",".join(request.headers.getlist("Accept"))
    if not header.strip():
        return offered[0]
    ranges = [_range(part) for part in header.split(",") if part.strip()]
    best, best_quality = None, 0.0
    for media_type in offered:
        quality = _quality(media_type, ranges)
        if quality > best_quality:
            best, best_quality = media_type, quality
    if best is None:
        raise NotAcceptable(f"this comes as {' or '.join(offered)}")
    return best


def _range(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return media_range, min(1.0, max(0.0, float(value)))
            except ValueError:
                return media_range, 0.0
    return media_range, 1.0


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    for wanted in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        found = [quality for media_range, quality in ranges if media_range == wanted]
        if found:
            return max(found)
    return 0.0


def require_type(request: Request, *taken: str, default: str | None = None) -> str:
    """The media type of the body, one of those `taken`; `default` where none is told. Raises UnsupportedMediaType."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("the body comes without a content encoding")
    header = request.headers.get("Content-Type", "")
    media_type, *parameters = (piece.strip().lower() for piece in header.split(";"))
    if not media_type and default is not None:
        return default
    if media_type not in taken:
        raise UnsupportedMediaType(f"the body is {' or '.join(taken)}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedMediaType("text comes in UTF-8")
    return media_type


def conditions_of(request: Request) -> Conditions:
    """Raises InvalidRequest for headers that are no lists of ETags."""
    is_any, match = _etags(request, "If-Match", is_weak_enough=False)
    is_absent, none_match = _etags(request, "If-None-Match", is_weak_enough=True)
    return Conditions(is_any, match, is_absent, none_match)


def _etags(request: Request, header: str, *, is_weak_enough: bool) -> tuple[bool, tuple[Version | None, ...] | None]:
    text = ",".join(request.headers.getlist(header)).strip()
    if header not in request.headers:
        return False, None
    if text == "*":
        return True, None
    found: list[Version | None] = []
    at = 0
    while at < len(text):
        match = _ETAG.match(text, at)
        if match is None:
            raise InvalidRequest(f"{header} is * or a list of ETags, each in quotation marks")
        ours = _OURS.fullmatch(match[2])
        is_ours = ours is not None and (is_weak_enough or match[1] is None)
        found.append(Version(int(ours[1]), int(ours[2]), ours[3]) if ours is not None and is_ours else None)
        rest = text[match.end() :].lstrip()
        if rest and not rest.startswith(","):
            raise InvalidRequest(f"{header} is * or a list of ETags, each in quotation marks")
        at = len(text) - len(rest.lstrip(", \t"))
    if not found:
        raise InvalidRequest(f"{header} is empty")
    return False, tuple(found)
