"""The shell of a session: sockets, time, tokens, and coming back. What frames mean is the session's.

One task for the life of the document connects, reads, and comes back with backoff and jitter until the session has
ended or is left. Everything happens in the loop that opened it.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import random
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from pycrdt import Doc
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from ydoc_store import __version__
from ydoc_store.client.errors import ClientError, Refused, Unavailable, Unreadable
from ydoc_store.client.session import Session

Token = str | Callable[[], str | Awaitable[str]] | None

# The first wait after a lost connection, and the longest; each is drawn anew from its upper half, so that many
# clients of a server that restarts do not come back at once. Somebody who waits has a deadline, 10 s where a document
# is left: a server that is back must be found within it.
BACKOFF_S_MIN = 0.25
BACKOFF_S_MAX = 15.0
BACKOFF_WAITED_FOR_S_MAX = 3.0
OPEN_TIMEOUT_S = 20.0
# How long the caller's function may take for a token; then it is asked anew, like a server that is away.
TOKEN_TIMEOUT_S = 20.0
# The server asks for the next token 15 s before the end of one: a function that fails is asked some times by then.
RENEW_PAUSE_S = 3.0
# The server says something every 15 s, whatever else it does; a message of its largest size may take a while.
SILENT_S_MAX = 60.0
TICK_S = 2.5
CLOSE_TIMEOUT_S = 2.0
# An HTTP status of these passes; others from 400 on mean that the URL or the way there is wrong.
_PASSING_STATUS = (408, 425, 429)

# With these the library closes a connection on which something came that it does not take.
_UNREADABLE = (1002, 1007, 1009)

log = logging.getLogger("ydoc_store.client")


class Connection:
    """Keeps `session` connected to `url`. `changed` pulses whenever something of the session may be different."""

    def __init__(self, url: str, name: str, token: Token, ydoc: Doc[Any], *, frame_bytes_max: int) -> None:
        self._url = url
        parts = urlsplit(url)
        # As errors may tell it: some have a password or a token in their URL.
        self._place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._name = name
        self._token = token
        self._frame_bytes_max = frame_bytes_max
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._waiters: set[asyncio.Future[None]] = set()
        self._deadlines = 0
        self._is_waited_for = asyncio.Event()
        self._turn_is_due = False
        self._to_write = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._is_leaving = False
        # What stood in the way last, and since when.
        self.trouble = "it has not been reached yet"
        self.session = Session(
            name,
            ydoc,
            wants_turn=self.want_turn,
            changed=self._pulse,
            failed=self.observer_failed,
            has_other_tokens=callable(token),
        )
        self._running = self._loop.create_task(self._run(), name=f"ydoc-store client of {name!r}")

    # Whoever waits

    def _pulse(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def pulse(self) -> None:
        """Returns when something has changed."""
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def until(self, holds: Callable[[], bool], timeout_s: float | None, wanted: str) -> None:
        """Returns once it holds. Raises what `holds` raises, and Unavailable at the deadline, never later."""
        if timeout_s is not None:
            self._deadlines += 1
            self._is_waited_for.set()
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                while not holds():
                    await self.pulse()
        except TimeoutError:
            if not deadline.expired():
                raise  # of `holds`
            state = f"last trouble: {self.trouble}"
            if self.session.is_synced:
                state = "it is connected"
            elif self.session.is_connected:
                state = f"it is connected, and the server has not sent the document yet{self._advice()}"
            raise Unavailable(f"{wanted} within {timeout_s:g} s; {state}") from None
        finally:
            if timeout_s is not None:
                self._deadlines -= 1
                if not self._deadlines:
                    self._is_waited_for.clear()

    def want_turn(self) -> None:
        """Send what was edited, once for all of this turn of the loop.

        RuntimeError in another thread, whose edit is sent all the same: one that meets the transaction in which the
        loop applies what others edited would be taken for theirs, and lost.
        """
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon_threadsafe(self._turn)
        if threading.get_ident() != self._thread_id:
            raise RuntimeError(
                f"document {self._name!r} was edited outside of its loop's thread: hand the edit to"
                " loop.call_soon_threadsafe, or open the document there with connect_sync"
            )

    def _turn(self) -> None:
        self._turn_is_due = False
        self.session.turn(self._loop.time())
        self._to_write.set()
        self._pulse()

    def observer_failed(self, error: BaseException) -> None:
        """Tell whoever looks after the loop: the document and its connection go on."""
        self._loop.call_exception_handler({"message": "an observer of a document failed", "exception": error})

    # Coming and going

    async def _run(self) -> None:
        session, attempts = self.session, 0
        while session.ended is None and not self._is_leaving:
            session.dropped = None
            began_at_s = self._loop.time()
            try:
                await self._connect()
            except Exception as error:
                self._lost(error)
            if session.is_synced and self._loop.time() - began_at_s > BACKOFF_S_MAX:
                # Not at once: a connection that fails again and again after its sync is no good one.
                attempts = 0
            session.disconnected()
            if session.ended is None and not self._is_leaving:
                self.trouble = session.dropped or self.trouble
                delay_s = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2**attempts)
                attempts = min(attempts + 1, 10)
                log.debug("not connected to %r (%s): again in %.2f s", self._name, self.trouble, delay_s)
                await self._pause(delay_s)
        if session.ended is not None:
            log.info("document %r has ended: %s", self._name, session.ended)

    async def _pause(self, delay_s: float) -> None:
        jitter = random.uniform(0.5, 1)
        anyway_s = jitter * min(delay_s, BACKOFF_WAITED_FOR_S_MAX)
        await asyncio.sleep(anyway_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(jitter * delay_s - anyway_s):
                await self._is_waited_for.wait()

    def _lost(self, error: Exception) -> None:
        """What a failed connection means: a trouble that passes, or the end."""
        session, trouble = self.session, f"{type(error).__name__}: {error}"
        is_new, self.trouble = trouble != self.trouble, trouble
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            # After a first sync the URL was right: a proxy is being changed, perhaps.
            if 400 <= status < 500 and status not in _PASSING_STATUS and not session.was_synced:
                reason = f"the server answered HTTP {status} at {self._place}{self._advice()}"
                session.end(Refused(reason, f"http_{status}"))
        elif isinstance(error, ClientError):
            session.end(error)
        elif is_new and not isinstance(error, OSError | InvalidHandshake | WebSocketException | EOFError):
            log.warning("a connection of document %r failed", self._name, exc_info=error)

    def _advice(self) -> str:
        """What is wrong with the URL, perhaps."""
        if self.session.was_synced or self._place.rstrip("/").endswith("/hocuspocus"):
            return ""
        return "; the URL for this client mostly ends in /hocuspocus"

    async def _connect(self) -> None:
        token = await self._ask_token()
        async with connect(
            self._url,
            max_size=self._frame_bytes_max,
            compression=None,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=None,
            user_agent_header=f"ydoc-store-client/{__version__}",
        ) as socket:
            self._socket = socket
            try:
                self.session.connected(token)
                self._to_write.set()
                await self._talk(socket)
            finally:
                self._socket = None

    async def _ask_token(self) -> str:
        ask = self._token
        if not callable(ask):
            return ask or ""
        async with asyncio.timeout(TOKEN_TIMEOUT_S):
            # It may ask over the network, and must not hold up the loop.
            called = ask() if inspect.iscoroutinefunction(ask) else await _in_thread(ask)
            token = await called if inspect.isawaitable(called) else called
        if not isinstance(token, str):
            raise TypeError(f"the function for tokens gave a {type(token).__name__}, and not a string")
        return token

    async def _talk(self, socket: ClientConnection) -> None:
        """Read until the connection, or the document, is over; write meanwhile."""
        writing = self._loop.create_task(self._write(socket))
        # Whatever stops the writer stops the reader; its error is raised below.
        writing.add_done_callback(lambda _task: socket.transport.abort())
        renewing: asyncio.Task[None] | None = None
        session = self.session
        try:
            while session.ended is None and session.dropped is None:
                async with asyncio.timeout(SILENT_S_MAX):
                    frame = await socket.recv(decode=False)
                session.receive(frame, self._loop.time())
                self._to_write.set()
                if session.token_wanted and (renewing is None or renewing.done()):
                    renewing = self._loop.create_task(self._renew())
                # A first sync is many frames that are here already: others have their turns between them.
                await asyncio.sleep(0)
        except TimeoutError:
            session.dropped = f"the server said nothing for {SILENT_S_MAX:g} s"
        except ConnectionClosed as closed:
            if closed.sent is not None and not closed.rcvd_then_sent and closed.sent.code in _UNREADABLE:
                raise Unreadable(f"the server sent what cannot be taken: {closed.sent.reason}") from closed
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            session.closed(code, reason + (reason and self._advice()))
        finally:
            beside = [task for task in (writing, renewing) if task is not None]
            for task in beside:
                task.cancel()
            # Not `await task`: that cannot tell this task's cancellation from theirs.
            await asyncio.wait(beside)
            if not writing.cancelled() and not isinstance(writing.exception(), ConnectionClosed | None):
                log.error("writing to document %r failed", self._name, exc_info=writing.exception())

    async def _write(self, socket: ClientConnection) -> None:
        outbox = self.session.outbox
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._to_write.wait()
            self._to_write.clear()
            self.session.tick(self._loop.time())
            while outbox:
                await socket.send(outbox.popleft())
            self._pulse()

    async def _renew(self) -> None:
        try:
            token = await self._ask_token()
        except Exception as error:
            # The old one may still hold for a while, and the next connection asks again.
            log.warning("no new token for document %r: %s: %s", self._name, type(error).__name__, error)
            await asyncio.sleep(RENEW_PAUSE_S)
            return
        if self.session.is_connected:
            self.session.renew(token)
            self._to_write.set()

    async def leave(self) -> None:
        """Say goodbye where there is a connection, and end the task. Edits after this are not sent."""
        self._is_leaving = True
        session = self.session
        try:
            with suppress(TimeoutError, ConnectionClosed):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    socket = self._socket
                    if socket is not None and session.is_connected:
                        session.leave()
                        self._to_write.set()
                        while session.outbox and session.is_connected:
                            await self.pulse()
                        await socket.close()
        finally:
            # Whoever is cancelled in here leaves all the same.
            self._running.cancel()
            try:
                await asyncio.wait([self._running])
            finally:
                session.left()
                session.replica.close()


async def _in_thread(ask: Callable[[], str | Awaitable[str]]) -> str | Awaitable[str]:
    """As `asyncio.to_thread`, in a thread that neither loop nor process waits for at its end: what hangs in there is
    the caller's, whose deadlines hold all the same."""
    called: Future[str | Awaitable[str]] = Future()
    context = contextvars.copy_context()

    def call() -> None:
        if not called.set_running_or_notify_cancel():
            return
        try:
            called.set_result(context.run(ask))
        except BaseException as error:
            called.set_exception(error)

    threading.Thread(target=call, name="ydoc-store token", daemon=True).start()
    return await asyncio.wrap_future(called)
