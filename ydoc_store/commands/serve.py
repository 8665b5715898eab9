"""`ydoc-store serve`: its flags, and what a person reads when the service is up.

The service itself is put together in `ydoc_store.serve`.
"""

from __future__ import annotations

import asyncio

import click

from ydoc_store import __version__
from ydoc_store.commands.options import DONE, FOUND_SOMETHING_WRONG, database_options, with_settings
from ydoc_store.http.pages import javascript, socket_url
from ydoc_store.node import CompactorParts
from ydoc_store.serve import Started, serve
from ydoc_store.settings import Settings

OPEN = "\n  open: whoever reaches this port reads and writes every document, so it answers this machine alone\n"
READ_ONLY = "\n  read-only: nothing is stored, because YDOC_READ_ONLY is set\n"


def serve_command(compactor: CompactorParts) -> click.Command:
    """The command, over the compactor that it runs inside itself; only the composition root may know that one."""

    @click.command("serve")
    @click.option("--host", metavar="ADDRESS", help="Where to listen. [YDOC_HOST]")
    @click.option("--port", metavar="PORT", help="For HTTP and WebSocket alike. [YDOC_PORT]")
    @database_options
    @click.option("--no-compactor", is_flag=True, help="Leave compaction to `ydoc-compactor run`. [YDOC_NO_COMPACTOR]")
    @with_settings
    def command(settings: Settings, /) -> int:
        """Run the service: WebSocket, HTTP and, unless told otherwise, the compactor."""
        drained = asyncio.run(serve(settings, compactor, announce=_announce))
        return DONE if drained else FOUND_SOMETHING_WRONG

    return command


def _announce(started: Started) -> None:
    base = f"http://{started.authority}"
    click.echo(
        f"ydoc-store {__version__}\n\n"
        f"  documents  {socket_url(started.authority)}NAME\n"
        f"  overview   {base}/\n"
        f"  health     {base}/health/ready    metrics  {base}/metrics\n"
        f"  data       {started.data}\n"
        f"             {started.how_to_delete}\n"
        f"{OPEN if started.is_open else ''}{READ_ONLY if started.read_only else ''}\n"
        "Connect an editor:\n\n" + "\n".join(f"  {line}" for line in javascript(started.authority).splitlines()) + "\n"
    )
