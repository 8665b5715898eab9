"""The description of the documents API is complete, valid, and true for whatever is sent (schemathesis asks)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Map, Text
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from tests.sites import Site
from ydoc_store.http import documents
from ydoc_store.http.app import Services, application
from ydoc_store.http.openapi import description
from ydoc_store.metrics import Metrics


def update_of(text: str, value: int) -> bytes:
    document: Doc[Any] = Doc()
    document["text"] = Text(text)
    document["map"] = Map({"value": value})
    return document.get_update()


# Names that documents of this run have, so that answers other than 404 come up; and any other.
NAMES = st.sampled_from(["a", "b", "a/b", "ä b"]) | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/."), min_size=1, max_size=40
)
UPDATES = st.builds(update_of, st.text(max_size=10), st.integers(-9, 9))

schemathesis.openapi.format("document-name", NAMES)
schemathesis.openapi.format("etag", st.sampled_from(["*", '"1-1-0123456789ab"', '"none"']))
schemathesis.openapi.format("state-vector", st.sampled_from(["AA", "AQEB", "AQEB=="[:4]]))
schemathesis.openapi.media_type("application/octet-stream", UPDATES)


# Valid all the same: a condition that does not hold, a document that is deleted, a key that came before.
STATES = ["409", "410", "412", "422"]
CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", "404", *STATES]},
            "negative_data_rejection": {"expected-statuses": ["400", "404", "406", *STATES, "413", "415"]},
        }
    }
)


def operations() -> list[tuple[str, str]]:
    return [
        (path, method) for path, item in description("")["paths"].items() for method in item if method != "parameters"
    ]


def test_every_route_is_described_with_every_method() -> None:
    described = {(path, method.upper()) for path, method in operations()}
    answered = {("/v1/documents", "GET"), ("/v1/documents:batch", "POST"), ("/v1/openapi.json", "GET")}
    for action, methods in documents.ANSWERS.items():
        path = "/v1/documents/{name}" + (f"/{action}" if action else "")
        answered |= {(path, method) for method in methods}
    assert described == answered


def test_the_application_has_no_route_of_documents_beside_these() -> None:
    async def ready() -> Any:
        raise AssertionError

    app = application(Services(ready, Metrics().render, has_identities=False))
    paths = {getattr(route, "path", "") for route in app.routes}
    assert {path for path in paths if path.startswith(("/v1/documents", "/v1/openapi"))} == {
        "/v1/documents",
        "/v1/documents:batch",
        "/v1/documents/{rest:path}",
        "/v1/openapi.json",
    }


def test_the_description_refers_to_nothing_that_is_not_in_it() -> None:
    told = description("/mounted/here")
    assert told["servers"] == [{"url": "/mounted/here"}]
    names = set(re.findall(r"#/components/schemas/(\w+)", str(told)))
    assert names == told["components"]["schemas"].keys() - {"ProseMirrorDocument"} | names


async def test_the_description_is_served(client: httpx.AsyncClient) -> None:
    served = await client.get("/v1/openapi.json")
    assert served.json() == description("")


def checking(site: Site, path: str, method: str, mode: GenerationMode, examples_max: int) -> Callable[[], None]:
    schema = schemathesis.openapi.from_dict(description(""), config=CONFIG)
    found = next(
        result.ok()
        for result in schema.get_all_operations()
        if isinstance(result, Ok) and (result.ok().path, result.ok().method) == (path, method)
    )

    @given(case=found.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples_max,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    def check(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE:
            make_consistent(case)
        case.call_and_validate(base_url=site.http_url, timeout=30)

    return check


def make_consistent(case: schemathesis.Case) -> None:
    """What depends on something else in the same request, which no schema can say."""
    query = dict(case.query or {})
    # Each is for other forms.
    query.pop("root" if "sv" in query else "", None)
    # Only what a page ended with.
    query.pop("cursor", None)
    if case.path.endswith("/content") and case.method == "PUT":
        query["as"] = {"application/json": "json", "text/plain": "text"}.get(case.media_type or "", "xml")
        if query["as"] == "xml":
            case.body = "<p>text</p>"
    case.query = query
    if case.method == "PATCH":
        for edit in case.body["edits"]:
            if edit["op"] in ("insert", "format") and isinstance(edit["path"][-1], str):
                edit["path"] = [*edit["path"][:255], 0]
            if isinstance(edit["path"][-1], str):
                edit.pop("count", None)
            if "xml" in edit:
                edit["xml"] = "<p>text</p>"
    if case.media_type == "application/json":
        case.body = exact(case.body)


def exact(value: Any) -> Any:
    """Without the integers that JavaScript would round."""
    if isinstance(value, dict):
        return {key: exact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [exact(inner) for inner in value]
    return value % 2**31 if isinstance(value, int) and abs(value) > 2**31 else value


async def prepare(client: httpx.AsyncClient) -> None:
    for name in ("a", "b", "a%2Fb"):
        await client.put(f"/v1/documents/{name}", content=update_of("hello", 1))
    await client.delete("/v1/documents/b")


def can_be_wrong(path: str, method: str) -> bool:
    """Whether a request has anything that could be wrong; an import tells what is wrong item by item."""
    found = description("")["paths"][path][method]
    return path != documents.BATCH_PATH and ("requestBody" in found or bool(found.get("parameters")))


async def test_answers_are_as_described(site: Site, client: httpx.AsyncClient) -> None:
    await prepare(client)
    for path, method in operations():
        await asyncio.to_thread(checking(site, path, method, GenerationMode.POSITIVE, 8))
        if can_be_wrong(path, method):
            await asyncio.to_thread(checking(site, path, method, GenerationMode.NEGATIVE, 4))


@pytest.mark.long
@pytest.mark.parametrize(("path", "method"), operations(), ids=lambda value: value)
async def test_answers_are_as_described_for_long(site: Site, client: httpx.AsyncClient, path: str, method: str) -> None:
    await prepare(client)
    await asyncio.to_thread(checking(site, path, method, GenerationMode.POSITIVE, 300))
    if can_be_wrong(path, method):
        await asyncio.to_thread(checking(site, path, method, GenerationMode.NEGATIVE, 150))
