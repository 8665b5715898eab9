"""The parts of the OpenAPI description that several paths share: schemas, parameters, and how answers are told.

Written by hand, in the words of README; tests hold every path and every answer to it. What a path does with them is
openapi.py's.
"""

from __future__ import annotations

from typing import Any, Final

from ydoc_store.http.document_keys import KEY_CHARACTERS_MAX
from ydoc_store.http.document_lists import ITEMS_MAX, PAGE_DEFAULT, PAGE_MAX
from ydoc_store.http.document_requests import JSON_TYPE, TEXT_TYPE, UPDATE_TYPE, XML_TYPE
from ydoc_store.names import NAME_BYTES_MAX
from ydoc_store.yjs.edits import EDITS_MAX, PATH_STEPS_MAX

Json = dict[str, Any]

NAME: Final[Json] = {
    "type": "string",
    "format": "document-name",
    "minLength": 1,
    "maxLength": NAME_BYTES_MAX,
    "description": f"1 to {NAME_BYTES_MAX} bytes of UTF-8 without control characters and without empty, '.' or '..' "
    "segments; in a path it is one percent-encoded segment, '/' as '%2F'",
}
_ETAG: Final[Json] = {"type": "string", "description": "epoch, seq and database, in quotation marks"}
_KEY: Final[Json] = {
    "type": "string",
    "minLength": 1,
    "maxLength": KEY_CHARACTERS_MAX,
    "pattern": '^([!#-~]([ !#-~]*[!#-~])?|"[ !#-~]+")$',
}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_MOMENT: Final[Json] = {"type": "string", "format": "date-time"}
_MOMENT_OR_NONE: Final[Json] = {"type": ["string", "null"], "format": "date-time"}
_PLACE: Final[Json] = {"epoch": {"type": "integer", "minimum": 1}, "seq": _COUNT}


def an_object(properties: Json, required: list[str] | None = None, *, is_open: bool = False) -> Json:
    found: Json = {"type": "object", "properties": properties}
    found["required"] = list(properties) if required is None else required
    return found if is_open else found | {"additionalProperties": False}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_PATH: Final[Json] = {
    "type": "array",
    "description": "the root type's name, then keys (strings) and indexes (numbers); in text UTF-16 units",
    "prefixItems": [{"type": "string"}],
    "items": {"oneOf": [{"type": "string"}, {"type": "integer", "minimum": 0, "maximum": 2**31}]},
    "minItems": 1,
    "maxItems": PATH_STEPS_MAX,
}
_BEHIND: Final[Json] = _PATH | {"minItems": 2}


def _edit(op: str, path: Json, content: Json, optional: Json | None = None) -> Json:
    return an_object({"op": {"const": op}, "path": path, **content, **(optional or {})}, ["op", "path", *content])


_PLAIN: Final[Json] = {"value": {"description": "plain JSON, changed as a whole"}}
_SHARED: Final[Json] = {
    "shared": {"type": ["object", "array", "string"], "description": "maps, arrays or a text, edited together"}
}
_XML: Final[Json] = {"xml": {"type": "string", "minLength": 1}}
_NODES: Final[Json] = {
    "prosemirror": {
        "description": "a node, or a list of them",
        "anyOf": [
            {"$ref": "#/components/schemas/ProseMirrorNode"},
            {"type": "array", "items": {"$ref": "#/components/schemas/ProseMirrorNode"}, "minItems": 1},
        ],
    }
}
_VALUES: Final[Json] = {"values": {"type": "array", "minItems": 1}}
_TEXT: Final[Json] = {"text": {"type": "string", "minLength": 1}}
_EMBED: Final[Json] = {"embed": {"type": "object", "minProperties": 1, "description": "one unit of a text"}}
_FORMATS: Final[Json] = {"attributes": {"type": "object"}}
_SET_FORMATS: Final[Json] = {
    "attributes": {"type": "object", "minProperties": 1, "description": "null takes one away; others stay"}
}
_COUNTED: Final[Json] = {"count": {"type": "integer", "minimum": 1}}

SCHEMAS: Final[Json] = {
    "Problem": an_object(
        {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "for programs; never changes for the same trouble"},
            "detail": {"type": "string", "description": "what is wrong and what to do about it, for people"},
        }
    ),
    "Written": an_object(
        {"name": NAME, **_PLACE, "is_new": {"type": "boolean", "description": "whether anything had to be stored"}},
        ["name", "epoch"],
    ),
    "Placed": an_object({"name": NAME, **_PLACE}),
    "Changed": an_object({"name": NAME, **_PLACE}, ["name", "epoch"]),
    "Document": an_object(
        {
            "name": NAME,
            **_PLACE,
            "etag": _ETAG,
            "size_bytes": _COUNT,
            "created_at": _MOMENT,
            "changed_at": _MOMENT,
            "deleted_at": _MOMENT_OR_NONE,
        }
    ),
    "Page": an_object(
        {
            "documents": {"type": "array", "items": ref("Document")},
            "next_cursor": {"type": ["string", "null"], "description": "null: this is the last page"},
        }
    ),
    "Read": an_object({"name": NAME, **_PLACE, "roots": {"type": "object"}}),
    "Statistics": an_object(
        {"name": NAME, **_PLACE, "size_bytes": _COUNT, "tail_rows": _COUNT, "history_bytes": _COUNT}, is_open=True
    ),
    "NewName": an_object({"name": NAME}),
    "Edits": an_object(
        {
            "edits": {
                "type": "array",
                "minItems": 1,
                "maxItems": EDITS_MAX,
                "items": {
                    "oneOf": [
                        *(_edit("set", _BEHIND, content) for content in (_PLAIN, _SHARED, _XML, _NODES)),
                        *(
                            _edit(op, path, content)
                            for op, path in (("insert", _BEHIND), ("append", _PATH))
                            for content in (_PLAIN, _VALUES, _SHARED, _XML, _NODES)
                        ),
                        *(
                            _edit(op, path, content, _FORMATS)
                            for op, path in (("insert", _BEHIND), ("append", _PATH))
                            for content in (_TEXT, _EMBED)
                        ),
                        _edit("format", _BEHIND, _SET_FORMATS, _COUNTED),
                        _edit("delete", _BEHIND, {}, _COUNTED),
                    ]
                },
            }
        }
    ),
    "Item": an_object(
        {
            "name": NAME,
            "update": {"type": "string", "contentEncoding": "base64", "description": "a Yjs update, v1"},
            "key": _KEY,
            "if_absent": {"type": "boolean", "description": "only where no such document is there"},
        },
        ["name", "update"],
    ),
    "Items": {"type": "array", "items": ref("Item"), "maxItems": ITEMS_MAX},
    "Imported": an_object(
        {
            "name": {"type": ["string", "null"]},
            "status": {"type": "integer"},
            **_PLACE,
            "is_new": {"type": "boolean"},
            "etag": _ETAG,
            "code": {"type": "string"},
            "detail": {"type": "string"},
        },
        ["name", "status"],
    ),
    "Delta": {
        "type": "array",
        "items": an_object(
            {"insert": {"type": ["string", "object"], "minLength": 1, "minProperties": 1}, **_FORMATS}, ["insert"]
        ),
    },
    "ProseMirrorDocument": {
        "type": "object",
        "properties": {"type": {"const": "doc"}, "content": {"type": "array", "items": ref("ProseMirrorNode")}},
        "required": ["type"],
        "additionalProperties": False,
    },
    "ProseMirrorNode": {
        "oneOf": [
            an_object(
                {
                    "type": {"const": "text"},
                    "text": {"type": "string", "minLength": 1},
                    "marks": {"type": "array", "items": ref("ProseMirrorMark")},
                },
                ["type", "text"],
            ),
            an_object(
                {
                    "type": {"type": "string", "minLength": 1, "not": {"const": "text"}},
                    "attrs": {"type": "object"},
                    "content": {"type": "array", "items": ref("ProseMirrorNode")},
                },
                ["type"],
            ),
        ]
    },
    "ProseMirrorMark": an_object({"type": {"type": "string", "minLength": 1}, "attrs": {"type": "object"}}, ["type"]),
}


def query(name: str, description: str, schema: Json | None = None) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema or {"type": "string"}}


def header(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "description": description, "schema": schema}


NAME_PARAMETER: Final[Json] = {"name": "name", "in": "path", "required": True, "schema": NAME}
ROOT: Final = query("root", "the root type; `default` without one")
AS: Final = query(
    "as",
    "in which form",
    {"type": "string", "enum": ["prosemirror", "text", "delta", "json", "xml"], "default": "prosemirror"},
)
IF_MATCH: Final = header("If-Match", "an ETag, or * for any: only this version", {"type": "string", "format": "etag"})
IF_NONE_MATCH: Final = header(
    "If-None-Match", "an ETag: not this version; * only where there is none", {"type": "string", "format": "etag"}
)
ONLY_NEW: Final = header("If-None-Match", "what is so in any case: only where there is none", {"const": "*"})
KEY: Final = header(
    "Idempotency-Key",
    "a write that is repeated with its key is stored once and answered alike",
    _KEY,
)
LIMIT: Final = query(
    "limit", "documents on a page", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT}
)

UPDATE_BODY: Final[Json] = {UPDATE_TYPE: {"schema": {"type": "string", "format": "binary"}}}
CONTENT: Final[Json] = {
    JSON_TYPE: {
        "schema": {
            "description": "ProseMirror's document, a delta, or any object or array with as=json",
            "anyOf": [ref("ProseMirrorDocument"), ref("Delta"), {"type": ["object", "array"]}],
        }
    },
    TEXT_TYPE: {"schema": {"type": "string"}},
    XML_TYPE: {"schema": {"type": "string"}},
    "text/xml": {"schema": {"type": "string"}},
}
CONTENT_TOLD: Final[Json] = CONTENT | {JSON_TYPE: {"schema": {"description": "ProseMirror's, a delta, or any JSON"}}}
_HEADERS: Final[Json] = {"ETag": {"schema": _ETAG}}
LOCATION: Final[Json] = {"Location": {"schema": {"type": "string"}}}


def answer(description: str, content: Json | None = None, *, headers: Json | None = None) -> Json:
    found: Json = {"description": description}
    if content is not None:
        found["content"] = content
    if headers:
        found["headers"] = headers
    return found


def told(name: str, description: str, *, headers: Json | None = None) -> Json:
    return answer(description, {JSON_TYPE: {"schema": ref(name)}}, headers=headers)


def versioned(found: Json) -> Json:
    return found | {"headers": _HEADERS | found.get("headers", {})}


_PROBLEMS: Final[dict[int, str]] = {
    400: "what was sent is no request, no name or no update",
    401: "a token is needed, or it does not hold",
    403: "this needs more access",
    404: "no such document",
    406: "it does not come in a form that the reader takes",
    409: "it does not fit the document's state, or belongs to another history of it",
    410: "the document was deleted; of a list, its cursor leads nowhere any more",
    412: "the document is not at the version that was asked for",
    413: "too large",
    415: "a body of another kind",
    422: "the key came with another request before",
    429: "an address tried too often",
    503: "a passing trouble of ours: try again",
}


def problems(*statuses: int) -> Json:
    """These answers, and those that every path may give, as problem documents."""
    return {
        str(status): answer(_PROBLEMS[status], {"application/problem+json": {"schema": ref("Problem")}})
        for status in sorted({400, 401, 403, 406, 429, 503, *statuses})
    }
