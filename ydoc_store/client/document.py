"""What `connect` gives: a document that stays in sync while it is open, and the promises of opening and leaving.

Everything here belongs to the loop that opened it. For code without one, `blocking` has the same in a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pycrdt import Doc
from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from ydoc_store.client.connection import Connection, Token
from ydoc_store.client.errors import ClientError, Unavailable

# An update of 16 MiB is the most that a server takes unless it is told otherwise.
FRAME_BYTES_MAX = 32 * 1024 * 1024
# Whoever is cancelled wants to go; what was edited a moment before has this long.
CANCELLED_LEAVE_S = 1.0

log = logging.getLogger("ydoc_store.client")


class PresenceOfAll:
    """Who else has the document open, and what this side shows of itself. Never stored."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._presence = connection.session.presence

    @property
    def mine(self) -> dict[str, Any] | None:
        """What this side shows; None: nothing."""
        return self._presence.mine

    @property
    def others(self) -> dict[int, dict[str, Any]]:
        """What each of the others shows, by client id; a copy. Empty while there is no connection."""
        return self._presence.others

    def show(self, state: Mapping[str, Any] | None) -> None:
        """Show this to the others until it is replaced, None to be seen no more; it is renewed, and shown again after
        a reconnect. Editors read `{"user": {"name": …, "color": …}}`. ValueError for what is no JSON object, or more
        than 15 KiB of it."""
        self._presence.show(state)
        self._connection.want_turn()

    async def changes(self) -> AsyncGenerator[dict[int, dict[str, Any]], None]:
        """The others now, and again whenever that has changed. A slow reader gets the newest and misses some between.

        Ends when the document is left; raises what ends the document.
        """
        shown: dict[int, dict[str, Any]] | None = None
        session = self._connection.session
        while True:
            if session.ended is not None:
                raise session.ended.with_traceback(None)
            others = self.others
            if others != shown:
                shown = others
                yield others
            elif session.is_left:
                return
            else:
                await self._connection.pulse()

    def observe(self, callback: Callable[[dict[int, dict[str, Any]]], object]) -> Callable[[], None]:
        """Call `callback` with the others whenever that has changed; returns what stops it. What it raises goes to the
        loop's exception handler."""

        def call() -> None:
            try:
                callback(self.others)
            except Exception as error:
                self._connection.observer_failed(error)

        return self._presence.observe(call)


class Document:
    """A document that is open. `ydoc` is the live pycrdt document: read it and edit it in the loop's own thread.

    Edits are sent as they are made, in order, joined where they come faster than the server commits; what others
    edit appears in it between two turns of the loop. It goes on through lost connections, restarts and failovers.
    An edit in another thread raises there (in pycrdt's ExceptionGroup), and is sent all the same.
    """

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self.ydoc: Doc[Any] = connection.session.replica.ydoc
        self.presence = PresenceOfAll(connection)
        self._connection = connection
        self._session = connection.session
        self._was_told = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.ended or self.trouble or 'in sync'}>"

    @property
    def is_connected(self) -> bool:
        """Whether it is in sync with the server at this moment."""
        return self._session.is_synced

    @property
    def trouble(self) -> str | None:
        """Why it is not in sync at this moment, for logs; None while it is."""
        return None if self.is_connected else self._connection.trouble

    @property
    def may_write(self) -> bool:
        """Whether the token last accepted lets this side edit."""
        return self._session.may_write is True

    @property
    def has_unsaved(self) -> bool:
        """Whether something was edited here that is not known to be committed."""
        return self._session.has_unsaved

    @property
    def ended(self) -> ClientError | None:
        """Why this document is over for good; None while it is not."""
        return self._session.ended

    async def saved(self, *, timeout_s: float | None = 30.0) -> None:
        """Returns when the server has committed everything that was edited here before this call; None: no deadline.

        What it returned for survives the end of this process and of the server. Raises, and never after its
        deadline: Unavailable (not known yet: the edits are kept, sent on, and may be asked about again), Refused
        (only reading is allowed), Deleted, EpochChanged, Unreadable. RuntimeError inside an open transaction, whose
        edits nobody has seen yet. Several may wait at once; cancelling one stops nothing else.
        """
        if self._session.replica.is_in_transaction:
            raise RuntimeError("saved() inside a transaction: what it edits is known only when it ends")
        through = self._session.edits
        await self._told(
            lambda: self._session.is_saved(through), timeout_s, "what was edited is not known to be stored"
        )

    async def wait_for(self, holds: Callable[[Doc[Any]], object], *, timeout_s: float | None = 30.0) -> None:
        """Returns once `holds(ydoc)` is true; it is asked again whenever content, presence or the connection may have
        changed. Raises Unavailable at the deadline (None: no deadline), and what ends the document."""

        def is_so() -> bool:
            if holds(self.ydoc):
                return True
            if self._session.ended is not None:
                raise self._session.ended.with_traceback(None)
            if self._session.is_left:
                raise Unavailable("this document was left, and what was waited for had not come")
            return False

        await self._told(is_so, timeout_s, "what was waited for did not come")

    async def wait_ended(self) -> None:
        """Returns when it is over for good: deleted, another epoch, or refused from now on; `ended` says why. Or when
        it was left, and `ended` is None."""
        while self._session.ended is None and not self._session.is_left:
            await self._connection.pulse()

    # For this package: whoever opened it leaves it.

    def _end(self, error: ClientError) -> None:
        """Give it up for this reason, which every waiter is told."""
        self._session.end(error)

    def _raise_end(self) -> None:
        """Raise what has ended it, if anything has; leaving does not repeat it then."""
        if self._session.ended is not None:
            self._was_told = True
            raise self._session.ended.with_traceback(None)

    async def _told(self, holds: Callable[[], bool], timeout_s: float | None, wanted: str) -> None:
        try:
            await self._connection.until(holds, timeout_s, wanted)
        except ClientError as error:
            self._was_told = self._was_told or error is self._session.ended
            raise

    async def _opened(self, timeout_s: float) -> None:
        def is_open() -> bool:
            if self._session.ended is not None:
                raise self._session.ended
            return self._session.was_synced

        await self._told(is_open, timeout_s, f"document {self.name!r} could not be opened")

    async def _leave(self, error: BaseException | None, timeout_s: float) -> None:
        """Close it. Without an `error` it raises unless everything is saved; an error of the caller's own is not
        replaced, but told what may be lost."""
        try:
            if error is not None:
                await self._leave_behind(error, timeout_s)
            elif not self._was_told:
                self._raise_end()
                if self.has_unsaved:
                    await self.saved(timeout_s=timeout_s)
        finally:
            await self._connection.leave()

    async def _leave_behind(self, error: BaseException, timeout_s: float) -> None:
        if isinstance(error, asyncio.CancelledError):
            timeout_s = min(timeout_s, CANCELLED_LEAVE_S)
        try:
            if self.has_unsaved:
                await self.saved(timeout_s=timeout_s)
        except (ClientError, RuntimeError) as unsaved:
            note = f"document {self.name!r}: what was edited last may not be stored: {unsaved}"
            error.add_note(note)
            log.warning("%s", note)


async def open_document(
    url: str, name: str, *, token: Token, ydoc: Doc[Any], timeout_s: float, frame_bytes_max: int
) -> Document:
    """An open document, which its caller leaves; see `connect`."""
    try:
        parse_uri(url)
    except (InvalidURI, ValueError) as error:
        raise ValueError("the URL of a server is ws:// or wss://, a host, and mostly /hocuspocus") from error
    if not name or "\0" in name:
        raise ValueError("a document's name is not empty and holds no NUL")
    if not (token is None or isinstance(token, str) or callable(token)):
        raise TypeError(f"a token is a string or a function that gives one, and not a {type(token).__name__}")
    connection = Connection(url, name, token, ydoc, frame_bytes_max=frame_bytes_max)
    document = Document(name, connection)
    try:
        await document._opened(timeout_s)
    except BaseException:
        await connection.leave()
        raise
    return document


@asynccontextmanager
async def connect(
    url: str,
    name: str,
    *,
    token: Token = None,
    ydoc: Doc[Any] | None = None,
    timeout_s: float = 30.0,
    leave_timeout_s: float = 10.0,
    frame_bytes_max: int = FRAME_BYTES_MAX,
) -> AsyncIterator[Document]:
    """Open a document: `async with connect("ws://127.0.0.1:1234/hocuspocus", "team/notes", token=token) as document:`

    Returns after the first sync; a server that is away is tried again until `timeout_s`. `token` is a string or a
    function, async or not, that gives one: it is asked at every connect and before a token ends, in a thread where it
    is not async. `ydoc` is a document of the caller's to be kept in sync instead of a new one. Raises Unavailable,
    Refused, Deleted, EpochChanged, Unreadable, and ValueError or TypeError for a URL, name or token that cannot be one.

    Proxies and the certificates that are trusted are those of the environment (`HTTPS_PROXY`, `NO_PROXY`,
    `SSL_CERT_FILE`).

    Leaving the block waits until everything is saved, at most `leave_timeout_s`, and raises what `saved` raises
    where it is not, or what has ended the document where nobody was told yet. A block that raises keeps its own error,
    with a note of what may be lost; one that was cancelled waits for a second at most.
    """
    document = await open_document(
        url,
        name,
        token=token,
        ydoc=Doc() if ydoc is None else ydoc,
        timeout_s=timeout_s,
        frame_bytes_max=frame_bytes_max,
    )
    try:
        yield document
    except BaseException as error:
        await document._leave(error, leave_timeout_s)
        raise
    await document._leave(None, leave_timeout_s)
