"""What a person sees who opens the server's address: what runs here and how an editor connects.

Also the words that `serve` prints at its start, so that both tell the same. Nothing here asks the database.
"""

from __future__ import annotations

from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from ydoc_store import __version__
from ydoc_store.names import YJS_PREFIX

# No script, no picture, no frame: the page is text, and whatever a Host header smuggles in stays text.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>ydoc-store</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}}
pre{{background:#f3f3f3;color:#111;padding:1rem;overflow-x:auto}}</style>
<h1>ydoc-store {version}</h1>
<p>This server keeps Yjs documents for collaborative editors. A document lives at
<code>{socket_url}NAME</code> and begins with its first edit.</p>
<pre>{javascript}</pre>
<p><a href="{root}/health/ready">health</a> · <a href="{root}/metrics">metrics</a></p>
</html>
"""


def socket_url(authority: str, *, secure: bool = False, root: str = "") -> str:
    """The URL under which every document's name is appended, ending in a slash; `root` is a mount's path."""
    return f"{'wss' if secure else 'ws'}://{authority}{root}{YJS_PREFIX}"


def javascript(authority: str, *, secure: bool = False, root: str = "") -> str:
    """The four lines that connect an editor with the stock provider, without a newline at the end."""
    server_url = socket_url(authority, secure=secure, root=root).rstrip("/")
    return (
        "import * as Y from 'yjs'\n"
        "import { WebsocketProvider } from 'y-websocket'\n"
        "const doc = new Y.Doc()\n"
        f"const provider = new WebsocketProvider('{server_url}', 'my-document', doc)"
    )


async def what_runs_here(request: Request) -> Response:
    """`GET /`: HTML for a browser, text for everyone else."""
    authority, secure = request.url.netloc, request.url.scheme == "https"
    root = request.base_url.path.rstrip("/")
    url = socket_url(authority, secure=secure, root=root)
    lines = javascript(authority, secure=secure, root=root)
    if "text/html" in request.headers.get("accept", ""):
        page = _PAGE.format(
            version=escape(__version__), socket_url=escape(url), javascript=escape(lines), root=escape(root)
        )
        return HTMLResponse(page, headers=_HEADERS)
    text = (
        f"ydoc-store {__version__} keeps Yjs documents for collaborative editors.\n\n"
        f"documents  {url}NAME\nhealth     {root}/health/live  {root}/health/ready\n"
        f"metrics    {root}/metrics\n\n{lines}\n"
    )
    return PlainTextResponse(text, headers=_HEADERS)
