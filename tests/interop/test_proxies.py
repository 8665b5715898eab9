"""README's nginx and Caddy configurations, with the programs of Debian's packages: TLS ends there, both dialects pass.

Names, ports and files are put in place of README's; nginx's time-outs are a thirtieth, and so is our keepalive.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.interop.editors import editing
from tests.interop.test_hocuspocus_identities import Application
from tests.interop.test_readme import block
from tests.nodes import Editor, closed_at_once
from tests.service import Service, free_port, serving
from tests.waiting import until

KEEPALIVE_S = 0.5
# Longer than the time-outs of README, scaled like the keepalive.
IDLE_S = 5.0
NGINX = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""
CADDY = """
{{
    admin off
    auto_https disable_redirects
}}
{server}
"""


@dataclass(frozen=True)
class Proxied:
    """A service behind a proxy, and the application that it asks."""

    port: int
    context: ssl.SSLContext
    application: Application
    service: Service

    def url(self, path: str) -> str:
        return f"wss://localhost:{self.port}{path}"


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Certificate and key for `localhost`, valid for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "localhost.crt", folder / "localhost.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return certificate, private


def configured(program: str, folder: Path, port: int, service: Service) -> list[str]:
    """The command of the proxy, over README's configuration."""
    certificate, private = self_signed(folder)
    server = block(program)
    places = {
        "127.0.0.1:1234": f"127.0.0.1:{service.port}",
        "/etc/ssl/app.example.com.crt": str(certificate),
        "/etc/ssl/app.example.com.key": str(private),
        "listen 443 ssl http2": f"listen 127.0.0.1:{port} ssl http2",
        "server_name app.example.com": "server_name localhost",
        "app.example.com {": f"https://localhost:{port} {{",
        "60s": "2s",
    }
    for written, here in places.items():
        assert program == "caddy" or written in server or written.endswith("{"), written
        server = server.replace(written, here)
    assert "example.com" not in server
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"absent: the program {program}")
    if program == "nginx":
        # Its workers write bodies into the test's folder, which is root's where the test is.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(NGINX.format(user=user, folder=folder, server=server))
        return [found, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    (folder / "Caddyfile").write_text(CADDY.format(server=server))
    return [found, "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture
def application() -> Iterator[Application]:
    started = Application()
    yield started
    started.stop()


@pytest.fixture(params=["nginx", "caddy"])
async def proxied(
    request: pytest.FixtureRequest, tmp_path: Path, database_url: str, application: Application
) -> AsyncIterator[Proxied]:
    environment = {
        "YDOC_AUTHORIZE_URL": application.url,
        "YDOC_TRUSTED_PROXIES": "127.0.0.1",
        "YDOC_KEEPALIVE_INTERVAL_S": str(KEEPALIVE_S),
    }
    async with serving(tmp_path, database_url=database_url, environment=environment) as service:
        port = free_port()
        command = configured(request.param, tmp_path, port, service)
        with (tmp_path / "proxy.log").open("wb") as log:
            homes = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **homes}
            )
        try:
            await until(lambda: answers(port) or process.returncode is not None)
            assert process.returncode is None, (tmp_path / "proxy.log").read_text()
            context = ssl.create_default_context(cafile=str(tmp_path / "localhost.crt"))
            yield Proxied(port, context, application, service)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def test_stock_editors_of_both_dialects_edit_one_document_through_the_proxy(
    proxied: Proxied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(tmp_path / "localhost.crt"))
    async with editing() as editors:
        ann = await editors.open_synced(proxied.url("/yjs"), "team/notes", params={"token": "ann"})
        ben = await editors.open_hocuspocus(proxied.url("/hocuspocus"), "team/notes", tokens=["ben"])
        await ben.saved()
        await ann.shows("hi")
        await ann.type(" from y-websocket")
        await ben.shows("hi from y-websocket")
        await ben.type(" and Hocuspocus")
        await ben.saved()
        await ann.shows("hi from y-websocket and Hocuspocus")
    told = {(asked["document"], asked["token"], asked["dialect"]) for asked in proxied.application.questions}
    assert told == {("team/notes", "ann", "y-websocket"), ("team/notes", "ben", "hocuspocus")}


async def test_the_application_is_told_cookies_and_the_clients_own_address(proxied: Proxied) -> None:
    options: dict[str, Any] = {
        "ssl": proxied.context,
        # Not the proxy's, and not what it says itself.
        "local_addr": ("127.0.0.2", 0),
        "host": "127.0.0.1",
        "additional_headers": {"Cookie": "session=of-ann", "X-Forwarded-For": "198.51.100.1"},
    }
    editor = await Editor.open_synced(proxied.url("/yjs/notes?token=ann"), **options)
    (asked,) = proxied.application.questions
    assert (asked["cookie"], asked["address"]) == ("session=of-ann", "127.0.0.2")
    await editor.leave()
    assert (await closed_at_once(proxied.url("/yjs/notes"), **options))[0] == 4401
    page = {**options, "origin": f"https://localhost:{proxied.port}"}
    await (await Editor.open_synced(proxied.url("/yjs/notes?token=ann"), **page)).leave()
    code, reason = await closed_at_once(
        proxied.url("/yjs/notes?token=ann"), **{**options, "origin": "https://evil.example"}
    )
    assert (code, "YDOC_ORIGINS" in reason) == (4403, True)


async def test_what_is_asked_over_http_passes_the_proxy_as_it_is(proxied: Proxied) -> None:
    """A slash inside of a name, a body over nginx's megabyte, and events at once."""
    headers = {"Authorization": "Bearer ann"}
    base_url = f"https://localhost:{proxied.port}"
    text = "0123456789abcdef" * 2**17
    async with httpx.AsyncClient(verify=proxied.context, base_url=base_url, headers=headers, timeout=30) as client:
        name = "/v1/documents/team%2Flarge"
        edited = await client.patch(name, json={"edits": [{"op": "append", "path": ["large"], "text": text}]})
        assert edited.status_code == 200, edited.text
        assert edited.json()["name"] == "team/large"
        assert (await client.get(name + "/content?root=large&as=text")).text == text
        live = "/v1/yjs/default/docs/team/large?offset=-1&live=sse"
        async with client.stream("GET", live, follow_redirects=True) as events, asyncio.timeout(30):
            assert "event: data" in [line async for line in _first(events.aiter_lines(), 5)]


async def _first(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        count -= 1
        if not count:
            return


async def test_the_provider_of_electricsql_edits_through_the_proxy_by_long_polls_and_by_events(
    proxied: Proxied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is neither collected by the proxy nor ended by its time-outs."""
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(tmp_path / "localhost.crt"))
    base = f"https://localhost:{proxied.port}"
    async with editing() as editors:
        ann, cyd = [
            await editors.open_electric(base, "team/notes", token=who, sse=sse)
            for who, sse in (("ann", False), ("cyd", True))
        ]
        for editor in (ann, cyd):
            await editor.synced()
        ben = await editors.open_synced(proxied.url("/yjs"), "team/notes", params={"token": "ben"})
        everyone = {"ann": ann, "ben": ben, "cyd": cyd}
        for editor in everyone.values():
            await editor.ask("setPresence", presence={"at": 1})
        shown = {name: {"at": 1, "user": {"id": name, "name": name.title()}} for name in everyone}
        for name, editor in everyone.items():
            await editor.shows_others(*(shown[other] for other in everyone if other != name))
        text = "hi"
        for editor, typed in ((ben, " from a socket"), (ann, ", by long polls"), (cyd, " and by events")):
            await editor.type(typed)
            text += typed
            for other in everyone.values():
                await other.shows(text)
        for editor, are_events in ((ann, False), (cyd, True)):
            told = await editor.ask("answers")
            assert told["errors"] == []
            assert {answer["status"] for answer in told["answers"]} <= {200, 204}
            assert {answer["events"] for answer in told["answers"] if answer["live"]} == {are_events}


async def test_a_page_has_as_many_documents_open_as_it_likes_over_one_connection(proxied: Proxied) -> None:
    """HTTP/2, as README promises to browsers, which have six connections a host without it."""
    limits = httpx.Limits(max_connections=1)
    headers = {"Authorization": "Bearer ann"}
    base_url = f"https://localhost:{proxied.port}"
    client = httpx.AsyncClient(
        http2=True, verify=proxied.context, base_url=base_url, headers=headers, limits=limits, timeout=30
    )
    async with client, contextlib.AsyncExitStack() as opened:
        for number in range(12):
            edit = {"op": "append", "path": ["text"], "text": "hi"}
            edited = await client.patch(f"/v1/documents/notes{number}", json={"edits": [edit]})
            assert edited.status_code == 200, edited.text
            live = f"/v1/yjs/default/docs/notes{number}?offset=-1&live=sse"
            events = await opened.enter_async_context(client.stream("GET", live, follow_redirects=True))
            assert events.http_version == "HTTP/2"
            assert "event: data" in [line async for line in _first(events.aiter_lines(), 5)]


async def test_an_idle_socket_outlives_the_proxys_time_outs(proxied: Proxied) -> None:
    ann = await Editor.open_synced(proxied.url("/yjs/notes?token=ann"), ssl=proxied.context, host="127.0.0.1")
    ended = asyncio.create_task(ann.closed())
    done, _ = await asyncio.wait([ended], timeout=IDLE_S)
    ended.cancel()
    assert not done, "the proxy closed an idle socket"
    await ann.type("!")
    ben = await Editor.open_synced(proxied.url("/yjs/notes?token=ben"), ssl=proxied.context, host="127.0.0.1")
    await ben.until(lambda: "!" in ben.text)
    await ann.leave()
    await ben.leave()
