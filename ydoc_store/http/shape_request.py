"""What a request to `/v1/shape` asks for: the parameters that ElectricSQL's client sends, read strictly. Pure.

A shape is one of two fixed tables, `updates` and `awareness`, of one document, which the condition names:
`where=document = $1` with the name in `params[1]`, or `where=document = 'NAME'` with quotes doubled as in SQL. Nothing
else is a condition here, and none reaches a database. What a handle means for a document is `shape_handles`'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl

from ydoc_store.errors import InvalidRequest
from ydoc_store.names import parse_name

# A stock client sends eleven; an application may add a few of its own for a proxy.
PARAMETERS_MAX: Final = 50
# The longest name with every quote doubled, and the words around it.
WHERE_CHARACTERS_MAX: Final = 1_100
HANDLE_CHARACTERS_MAX: Final = 80
CURSOR_CHARACTERS_MAX: Final = 40
OFFSET_DIGITS_MAX: Final = 16

_CONDITION: Final = re.compile(r"""\s*document\s*=\s*(?:(?P<parameter>\$1)|'(?P<literal>(?:[^']|'')*)')\s*""")
_OFFSET: Final = re.compile(rf"([0-9]{{1,{OFFSET_DIGITS_MAX}}})_([0-9]{{1,{OFFSET_DIGITS_MAX}}})")
_CURSOR: Final = re.compile(rf"[0-9A-Za-z_-]{{0,{CURSOR_CHARACTERS_MAX}}}")


class Table(StrEnum):
    """What a shape shows of a document."""

    UPDATES = "updates"
    AWARENESS = "awareness"


class Start(StrEnum):
    """Offsets that are words."""

    BEGINNING = "-1"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class ShapeRequest:
    """One read of a shape, or with PUT one write to it: then `offset` means nothing.

    `offset` counts as the table does: a document's seq, or the version of its presence. `handle` is as it was sent.
    """

    table: Table
    document: str
    offset: Start | int
    handle: str | None
    is_live: bool
    wants_events: bool


def parse_shape_request(query: str) -> ShapeRequest:
    """The request that this query string, still encoded, is. What it says beyond the protocol is ignored, as is what
    changes nothing here: `replica` (rows are whole) and the client's cache busters.

    Raises InvalidRequest, InvalidName.
    """
    given = _parameters(query)
    for name in given:
        if name.startswith("subset__"):
            raise InvalidRequest("subsets of a shape are not served: read all of it")
    if given.get("log", "full") != "full":
        raise InvalidRequest("log=full is the only mode: a document is all of its updates")
    if "columns" in given:
        raise InvalidRequest("columns cannot be chosen: a row is whole")
    if given.get("replica", "default") not in ("default", "full"):
        raise InvalidRequest("replica is default or full")
    if _CURSOR.fullmatch(given.get("cursor", "")) is None:
        raise InvalidRequest("the cursor is none: send back what electric-cursor said")
    offset = _offset(given.get("offset", Start.BEGINNING))
    handle = given.get("handle") or None
    if handle is not None and len(handle) > HANDLE_CHARACTERS_MAX:
        raise InvalidRequest("the handle is none of this server's")
    if handle is None and not isinstance(offset, Start):
        raise InvalidRequest("an offset has no meaning without the handle that came with it")
    is_live = _flag(given, "live")
    return ShapeRequest(
        _table(given),
        _document(given),
        offset,
        handle,
        is_live,
        is_live and (_flag(given, "live_sse") or _flag(given, "experimental_live_sse")),
    )


def _parameters(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except ValueError as error:
        raise InvalidRequest(f"the parameters are at most {PARAMETERS_MAX}, in UTF-8") from error
    given = dict(pairs)
    if len(given) < len(pairs):
        raise InvalidRequest("a parameter is given twice")
    return given


def _table(given: dict[str, str]) -> Table:
    try:
        return Table(given.get("table", ""))
    except ValueError:
        raise InvalidRequest("table is updates or awareness") from None


def _document(given: dict[str, str]) -> str:
    where = given.get("where", "")
    match = _CONDITION.fullmatch(where) if len(where) <= WHERE_CHARACTERS_MAX else None
    parameters = {name for name in given if name == "params" or name.startswith("params[")}
    if match is None or parameters != ({"params[1]"} if match["parameter"] else set()):
        raise InvalidRequest("where is document = $1, with the document's name in params[1], or document = 'NAME'")
    if match["parameter"]:
        return parse_name(given["params[1]"])
    return parse_name(match["literal"].replace("''", "'"))


def _offset(text: str) -> Start | int:
    if text in (Start.BEGINNING, Start.NOW):
        return Start(text)
    match = _OFFSET.fullmatch(text)
    if match is None or int(match[2]) != 0:
        raise InvalidRequest("the offset is none: -1, now, or what electric-offset said")
    return int(match[1])


def _flag(given: dict[str, str], name: str) -> bool:
    value = given.get(name, "false")
    if value not in ("true", "false"):
        raise InvalidRequest(f"{name} is true or false")
    return value == "true"
