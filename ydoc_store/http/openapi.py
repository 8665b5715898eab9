"""The OpenAPI description of `/v1/documents`, served at `/v1/openapi.json`: which path does what, and may answer what.

A test holds that every route is described, and that the answers are as described for whatever is sent.
"""

from __future__ import annotations

from typing import Any, Final

from ydoc_store import __version__
from ydoc_store.http.document_lists import LINES_TYPE
from ydoc_store.http.document_requests import JSON_TYPE, TEXT_TYPE
from ydoc_store.http.openapi_schemas import (
    AS,
    CONTENT,
    CONTENT_TOLD,
    IF_MATCH,
    IF_NONE_MATCH,
    KEY,
    LIMIT,
    LOCATION,
    NAME_PARAMETER,
    ONLY_NEW,
    ROOT,
    SCHEMAS,
    UPDATE_BODY,
    Json,
    answer,
    problems,
    query,
    ref,
    told,
    versioned,
)

_UNCHANGED: Final = versioned(answer("the reader has this version already"))
_SEEN: Final = (IF_MATCH, IF_NONE_MATCH)
_WRITTEN: Final = (404, 409, 410, 412, 413, 415, 422)


def description(root: str) -> Json:
    """All of it, for an application that is mounted under `root`."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ydoc-store",
            "version": __version__,
            "description": "Yjs documents over HTTP. What is written here is an update like any editor's: logged "
            "under the name of who sent it, and shown to open editors at once.",
        },
        "servers": [{"url": root or "/"}],
        "security": [{"bearer": []}, {"parameter": []}, {}],
        "paths": {
            "/v1/documents": {"get": _LIST},
            "/v1/documents:batch": {"post": _BATCH},
            "/v1/documents/{name}": {"parameters": [NAME_PARAMETER], **_DOCUMENT},
            "/v1/documents/{name}/content": {"parameters": [NAME_PARAMETER], **_CONTENT},
            "/v1/documents/{name}/state-vector": {"parameters": [NAME_PARAMETER], "get": _VECTOR},
            "/v1/documents/{name}/statistics": {"parameters": [NAME_PARAMETER], "get": _STATISTICS},
            "/v1/documents/{name}/copy": {"parameters": [NAME_PARAMETER], "post": _COPY},
            "/v1/documents/{name}/rename": {"parameters": [NAME_PARAMETER], "post": _RENAME},
            "/v1/documents/{name}/undelete": {"parameters": [NAME_PARAMETER], "post": _UNDELETE},
            "/v1/openapi.json": {"get": _DESCRIPTION},
        },
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "parameter": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


def _operation(name: str, summary: str, responses: Json, **more: Any) -> Json:
    return {"operationId": name, "summary": summary, **more, "responses": responses}


def _body(content: Json, *, required: bool = True) -> Json:
    return {"required": required, "content": content}


_LIST: Final = _operation(
    "listDocuments",
    "The next documents by name, as far as the token may read them",
    {"200": told("Page", "a page, in the order of the names' bytes"), **problems(410)},
    parameters=[
        query("prefix", "what the names begin with"),
        query("cursor", "where the page before ended"),
        LIMIT,
        query("deleted", "deleted ones too", {"type": "boolean", "default": False}),
    ],
)
_BATCH: Final = _operation(
    "importDocuments",
    "Many updates for many documents, each stored or refused by itself",
    {
        "200": answer(
            "what became of each, in order",
            {
                JSON_TYPE: {"schema": {"type": "array", "items": ref("Imported")}},
                LINES_TYPE: {"schema": {"type": "string"}},
            },
        ),
        **problems(413, 415),
    },
    requestBody=_body({JSON_TYPE: {"schema": ref("Items")}, LINES_TYPE: {"schema": {"type": "string"}}}),
)
_DOCUMENT: Final[Json] = {
    "get": _operation(
        "readDocument",
        "The document as a Yjs update, as JSON of its root types, or one of them as text",
        {
            "200": versioned(
                answer(
                    "as the Accept header has it",
                    {**UPDATE_BODY, JSON_TYPE: {"schema": ref("Read")}, TEXT_TYPE: {"schema": {"type": "string"}}},
                )
            ),
            "304": _UNCHANGED,
            **problems(404, 409, 410, 412, 413),
        },
        parameters=[
            query(
                "sv",
                "a state vector in base64 or base64url: only what its owner lacks",
                {"type": "string", "format": "state-vector"},
            ),
            query(
                "root",
                "root types, for JSON; one of them, for text",
                {"type": "array", "items": {"type": "string"}, "maxItems": 100},
            ),
            *_SEEN,
        ],
    ),
    "head": _operation(
        "describeDocument",
        "The document's version",
        {"200": versioned(answer("it is there")), "304": _UNCHANGED, **problems(404, 410, 412)},
        parameters=[*_SEEN],
    ),
    "post": _operation(
        "appendUpdate",
        "Add a Yjs update; it begins the document where there is none",
        {
            "200": told("Written", "stored, or nothing in it was new"),
            "201": versioned(told("Written", "it began the document", headers=LOCATION)),
            **problems(*_WRITTEN),
        },
        parameters=[KEY, *_SEEN],
        requestBody=_body(UPDATE_BODY),
    ),
    "patch": _operation(
        "editDocument",
        "Edit maps, arrays, texts and XML: all edits, or none",
        {
            "200": told("Written", "stored"),
            "201": versioned(told("Written", "it began the document", headers=LOCATION)),
            **problems(*_WRITTEN),
        },
        parameters=[KEY, *_SEEN],
        requestBody=_body({JSON_TYPE: {"schema": ref("Edits")}}),
    ),
    "put": _operation(
        "createDocument",
        "Begin a document with an update, an empty one without a body; exactly once",
        {"201": versioned(told("Placed", "begun", headers=LOCATION)), **problems(409, 410, 412, 413, 415, 422)},
        parameters=[KEY, ONLY_NEW],
        requestBody=_body(UPDATE_BODY, required=False),
    ),
    "delete": _operation(
        "deleteDocument",
        "Delete it, until it is undeleted; after YDOC_DELETED_KEPT_DAYS its content goes for good",
        {"204": answer("it is deleted"), **problems(404, 410, 412, 422)},
        parameters=[IF_MATCH, KEY],
    ),
}
_CONTENT: Final[Json] = {
    "get": _operation(
        "readContent",
        "A root type as ProseMirror's JSON, as text, as JSON or as XML",
        {
            "200": versioned(answer("in the form that was asked for", CONTENT_TOLD)),
            "304": _UNCHANGED,
            **problems(404, 409, 410, 412, 413),
        },
        parameters=[ROOT, AS, *_SEEN],
    ),
    "put": _operation(
        "createDocumentWithContent",
        "Begin a document with this content; exactly once",
        {"201": versioned(told("Placed", "begun", headers=LOCATION)), **problems(409, 410, 412, 413, 415, 422)},
        parameters=[ROOT, AS, KEY, ONLY_NEW],
        requestBody=_body(CONTENT),
    ),
}
_VECTOR: Final = _operation(
    "readStateVector",
    "What a reader of now has: `sv` of a later read",
    {"200": versioned(answer("a state vector", UPDATE_BODY)), "304": _UNCHANGED, **problems(404, 410, 412)},
    parameters=[*_SEEN],
)
_STATISTICS: Final = _operation(
    "readStatistics",
    "Sizes, backlog, history and times, of deleted documents too",
    {"200": told("Statistics", "figures"), **problems(404)},
)
_COPY: Final = _operation(
    "copyDocument",
    "Begin a document with the content of this one",
    {"201": versioned(told("Placed", "begun", headers=LOCATION)), **problems(404, 409, 410, 412, 413, 415, 422)},
    parameters=[KEY],
    requestBody=_body({JSON_TYPE: {"schema": ref("NewName")}}),
)
_RENAME: Final = _operation(
    "renameDocument",
    "Give it another name, with its epochs and its history",
    {"200": versioned(told("Changed", "renamed", headers=LOCATION)), **problems(404, 409, 410, 413, 415, 422)},
    parameters=[KEY],
    requestBody=_body({JSON_TYPE: {"schema": ref("NewName")}}),
)
_UNDELETE: Final = _operation(
    "undeleteDocument",
    "Take its deletion back",
    {"200": versioned(told("Changed", "it is there again")), **problems(404, 409, 410, 422)},
    parameters=[KEY],
)
_DESCRIPTION: Final = _operation(
    "describe", "This description", {"200": answer("OpenAPI", {JSON_TYPE: {"schema": {"type": "object"}}})}, security=[]
)
