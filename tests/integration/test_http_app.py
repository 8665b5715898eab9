"""The ASGI application: what an operator, a load balancer and a curious person get."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from ydoc_store.errors import StorageUnavailable
from ydoc_store.http.app import Services, application
from ydoc_store.http.health import Check, Report, Verdict
from ydoc_store.metrics import Metrics


class Operation:
    """The application over a report that a test sets."""

    def __init__(self, *, has_identities: bool = False) -> None:
        self.report = Report(Verdict.READY, (Check("phase", Verdict.READY, "serving"),))
        self.error: Exception | None = None
        self.metrics = Metrics()
        self.app = application(Services(self.ready, self.metrics.render, has_identities))

    async def ready(self) -> Report:
        if self.error is not None:
            raise self.error
        return self.report

    def client(self, host: str = "localhost:1234") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=f"http://{host}")


@pytest.fixture
def operation() -> Operation:
    return Operation()


@pytest.fixture
async def client(operation: Operation) -> AsyncIterator[httpx.AsyncClient]:
    async with operation.client() as client:
        yield client


async def test_a_person_reads_what_runs_here_and_how_to_connect(client: httpx.AsyncClient) -> None:
    for accept, kind in (("text/html,*/*", "text/html"), ("*/*", "text/plain")):
        answer = await client.get("/", headers={"Accept": accept})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "ws://localhost:1234/yjs/NAME" in answer.text.replace("</code>", "").replace("<code>\n", "")
        assert "new WebsocketProvider(" in answer.text
        assert "/health/ready" in answer.text
        assert "/metrics" in answer.text


async def test_the_page_runs_nothing_and_whatever_the_host_is_stays_text() -> None:
    async with Operation(has_identities=True).client("x") as client:
        answer = await client.get("/", headers={"Accept": "text/html", "Host": "<script>alert(1)</script>"})
    assert "<script" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_live_says_so_whatever_else_is_wrong(operation: Operation, client: httpx.AsyncClient) -> None:
    operation.error = StorageUnavailable("gone")
    answer = await client.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "live"})


@pytest.mark.parametrize(("verdict", "status"), [(Verdict.READY, 200), (Verdict.DEGRADED, 200), (Verdict.UNREADY, 503)])
async def test_only_unready_takes_the_process_out_of_service(
    verdict: Verdict, status: int, operation: Operation, client: httpx.AsyncClient
) -> None:
    operation.report = Report(verdict, (Check("database", verdict, "no answer for 31 s"),))
    answer = await client.get("/health/ready")
    assert answer.status_code == status
    assert answer.headers["cache-control"] == "no-store"
    word = verdict.name.lower()
    assert answer.json() == {
        "status": word,
        "checks": [{"name": "database", "status": word, "detail": "no answer for 31 s"}],
    }


async def test_prometheus_reads_the_metrics(operation: Operation, client: httpx.AsyncClient) -> None:
    operation.metrics.rooms = 7
    answer = await client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\nydoc_rooms 7.0\n" in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("POST", "/", 405), ("DELETE", "/metrics", 405), ("GET", "/yjs/plan", 426)],
)
async def test_an_error_is_a_problem_document(method: str, path: str, status: int, client: httpx.AsyncClient) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert answer.json()["detail"]


async def test_an_error_of_ours_keeps_its_status(operation: Operation, client: httpx.AsyncClient) -> None:
    operation.error = StorageUnavailable("no connection is free")
    answer = await client.get("/health/ready")
    assert (answer.status_code, answer.json()["detail"]) == (503, "no connection is free")
    assert answer.headers["retry-after"] == "1"


async def test_an_unexpected_error_explains_nothing_to_the_caller(
    operation: Operation, client: httpx.AsyncClient
) -> None:
    operation.error = RuntimeError("the password is hunter2")
    answer = await client.get("/health/ready")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "example.com"},
        {"Origin": "https://example.com"},
        {"Origin": "null"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/health/live", "/metrics", "/nothing"])
async def test_an_open_server_answers_this_machine_alone(
    path: str, headers: dict[str, str], client: httpx.AsyncClient
) -> None:
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 403
    assert "YDOC_JWT_SECRET" in answer.json()["detail"]


async def test_with_identities_it_answers_everyone() -> None:
    async with Operation(has_identities=True).client("example.com") as client:
        answer = await client.get("/health/live", headers={"X-Forwarded-For": "10.0.0.1"})
    assert answer.status_code == 200
