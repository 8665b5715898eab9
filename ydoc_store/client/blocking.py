"""`connect` for code without a loop: jobs, scripts, notebooks, tests. A thread of its own talks to the server.

pycrdt's documents are not shared between threads. So there are two: the caller's, which only the caller's thread
touches, and one in the thread; they exchange updates. What others edit therefore appears when the caller asks for
it, never under a running computation.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from pycrdt import Doc, Subscription, TransactionEvent

from ydoc_store.client.connection import Token
from ydoc_store.client.document import FRAME_BYTES_MAX, Document, open_document
from ydoc_store.client.errors import ClientError, Unavailable, Unreadable
from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.join import join
from ydoc_store.yjs.merge import EMPTY_UPDATE, fenced

Returned = TypeVar("Returned")


class BlockingPresence:
    """Who else has the document open, and what this side shows of itself. Never stored."""

    def __init__(self, document: BlockingDocument) -> None:
        self._document = document

    @property
    def mine(self) -> dict[str, Any] | None:
        """What this side shows; None: nothing."""
        return self._document._call(lambda document: document.presence.mine)

    @property
    def others(self) -> dict[int, dict[str, Any]]:
        """What each of the others shows, by client id; a copy. Empty while there is no connection."""
        return self._document._call(lambda document: document.presence.others)

    def show(self, state: Mapping[str, Any] | None) -> None:
        """As `PresenceOfAll.show`."""
        self._document._call(lambda document: document.presence.show(state))


class BlockingDocument:
    """A document that is open, for one thread at a time. Edits are sent as they are made.

    `with` leaves it at the end of its block; without, `leave` does, or the end of the process where nobody did.
    """

    def __init__(self, name: str, ydoc: Doc[Any], leave_timeout_s: float) -> None:
        self.name = name
        self.presence = BlockingPresence(self)
        self._ydoc = ydoc
        self._leave_timeout_s = leave_timeout_s
        self._loop: asyncio.AbstractEventLoop
        self._document: Document
        self._mirror: Doc[Any]
        self._is_taking = False
        self._is_applying = False
        self._thread: threading.Thread
        # What came from the server and is not in the caller's document yet, and how often anything changed; guarded.
        self._arrived: list[bytes] = []
        self._changes = 0
        self._changed = threading.Condition()
        self._observed: Subscription | None = None
        self._left: asyncio.Future[BaseException | None]
        self._ended: Future[None] = Future()
        self._is_left = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.ended or self.trouble or 'in sync'}>"

    # In the caller's thread

    @property
    def ydoc(self) -> Doc[Any]:
        """The pycrdt document, with everything that has come by now."""
        self.refresh()
        return self._ydoc

    def refresh(self) -> bool:
        """Take in what others have edited; whether there was anything. What an observer of the document raises comes
        out here, after all of it was applied."""
        arrived = list(self._arrived)
        if not arrived:
            return False
        self._is_applying = True
        try:
            self._ydoc.apply_update(join(arrived))
        except ExceptionGroup:
            self._take_off(len(arrived))
            raise
        finally:
            self._is_applying = False
        # Not before: whoever is interrupted in between asks again, and misses nothing.
        self._take_off(len(arrived))
        return True

    def _take_off(self, count: int) -> None:
        with self._changed:
            del self._arrived[:count]

    def wait_for(self, holds: Callable[[Doc[Any]], object], *, timeout_s: float | None = 30.0) -> None:
        """Returns once `holds(ydoc)` is true; it is asked again whenever content or presence has come. Raises
        Unavailable at the deadline (None: no deadline), and what ends the document."""
        deadline_s = time.monotonic() + (threading.TIMEOUT_MAX if timeout_s is None else timeout_s)
        while True:
            self._check_open()
            changes = self._changes
            if holds(self.ydoc):
                return
            left_s = deadline_s - time.monotonic()
            with self._changed:
                is_same = self._changes == changes
                if is_same:
                    self._document._raise_end()
                if left_s <= 0:
                    # Also where others never stop editing.
                    raise Unavailable(f"what was waited for did not come within {timeout_s:g} s")
                if is_same:
                    self._changed.wait(left_s)

    def saved(self, *, timeout_s: float | None = 30.0) -> None:
        """Returns when the server has committed everything edited before; raises as `Document.saved` does."""
        if self._ydoc._txn is not None:
            raise RuntimeError("saved() inside a transaction: what it edits is known only when it ends")
        self._check_open()
        self._await(self._document.saved(timeout_s=timeout_s))

    @property
    def is_connected(self) -> bool:
        """Whether it is in sync with the server at this moment."""
        return self._document.is_connected

    @property
    def trouble(self) -> str | None:
        """Why it is not in sync at this moment, for logs; None while it is."""
        return self._document.trouble

    @property
    def may_write(self) -> bool:
        """Whether the token last accepted lets this side edit."""
        return self._document.may_write

    @property
    def has_unsaved(self) -> bool:
        """Whether something was edited here that is not known to be committed."""
        return self._document.has_unsaved if self._is_left else self._call(lambda document: document.has_unsaved)

    @property
    def ended(self) -> ClientError | None:
        """Why this document is over for good; None while it is not."""
        return self._document.ended

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._leave(error)

    def leave(self) -> None:
        """Leave it as the end of a `with` block does, and raise as that does. Once it is left this does nothing."""
        self._leave(None)

    def _leave(self, error: BaseException | None) -> None:
        if self._is_left:
            return
        self._is_left = True
        atexit.unregister(self.leave)
        if self._observed is not None:
            self._ydoc.unobserve(self._observed)
        if self._thread.is_alive():  # not in a process that was forked off: there the document is none of its own
            self._loop.call_soon_threadsafe(self._left.set_result, error)
            self._ended.result()
            self._thread.join()
        if error is None:
            self.refresh()

    def _check_open(self) -> None:
        if self._is_left:
            raise RuntimeError(f"document {self.name!r} was left")
        if not self._thread.is_alive():
            raise RuntimeError(f"document {self.name!r} was opened in another process: open it anew in this one")

    def _call(self, ask: Callable[[Document], Returned]) -> Returned:
        async def call() -> Returned:
            return ask(self._document)

        self._check_open()
        return self._await(call())

    def _await(self, work: Coroutine[Any, Any, Returned]) -> Returned:
        """In the thread, after everything that was edited here before."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _edited(self, event: TransactionEvent) -> None:
        update = event.update
        if not self._is_applying and update != EMPTY_UPDATE:
            self._check_open()
            self._loop.call_soon_threadsafe(self._take, update)

    def _open(self, **how: Any) -> None:
        opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run_in_thread,
            args=(opened, self._ydoc.get_update(), self._ydoc.client_id, how),
            name=f"ydoc-store client of {self.name!r}",
            daemon=True,
        )
        self._thread.start()
        try:
            opened.result()
            self._observed = self._ydoc.observe(self._edited)
            atexit.register(self.leave)
            self.refresh()
        except BaseException as error:
            # Whoever is interrupted waits for nobody; the thread leaves by itself where it has not opened yet.
            if not opened.cancel() and opened.exception() is None:
                self._leave(error)
            raise

    # In the thread

    def _run_in_thread(self, opened: Future[None], content: bytes, client_id: int, how: dict[str, Any]) -> None:
        try:
            asyncio.run(self._stay(opened, content, client_id, how))
        except BaseException as error:
            for future in (opened, self._ended):
                if not future.done():
                    future.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _stay(self, opened: Future[None], content: bytes, client_id: int, how: dict[str, Any]) -> None:
        """Open, wait for the caller to leave, and leave."""
        self._loop = asyncio.get_running_loop()
        self._left = self._loop.create_future()
        # Presence is shown under the id with which the caller edits.
        self._mirror = Doc(client_id=client_id)
        if content != EMPTY_UPDATE:
            self._mirror.apply_update(content)
        # Before anything arrives, so that nothing is missed.
        subscription = self._mirror.observe(self._heard)
        try:
            self._document = await open_document(name=self.name, ydoc=self._mirror, **how)
            self._document.presence.observe(lambda _others: self._tell())
            ending = self._loop.create_task(self._tell_the_end())
            if opened.set_running_or_notify_cancel():
                opened.set_result(None)
            else:
                self._left.set_result(None)
            try:
                await self._document._leave(await self._left, self._leave_timeout_s)
            finally:
                ending.cancel()
        finally:
            self._mirror.unobserve(subscription)

    def _take(self, update: bytes) -> None:
        self._is_taking = True
        try:
            fenced(self._mirror.apply_update, update)
        except InvalidUpdate as error:
            # Told to whoever asks whether it is saved.
            self._document._end(Unreadable(f"what was edited cannot be sent: {error}"))
        finally:
            self._is_taking = False

    def _heard(self, event: TransactionEvent) -> None:
        update = event.update
        if not self._is_taking and update != EMPTY_UPDATE:
            self._tell(update)

    def _tell(self, *arrived: bytes) -> None:
        with self._changed:
            self._arrived += arrived
            self._changes += 1
            self._changed.notify_all()

    async def _tell_the_end(self) -> None:
        await self._document.wait_ended()
        self._tell()


def connect_sync(
    url: str,
    name: str,
    *,
    token: Token = None,
    ydoc: Doc[Any] | None = None,
    timeout_s: float = 30.0,
    leave_timeout_s: float = 10.0,
    frame_bytes_max: int = FRAME_BYTES_MAX,
) -> BlockingDocument:
    """`connect` for code without a loop, and for notebooks, whose loop is not touched: `with connect_sync(…) as doc:`

    Takes and raises what `connect` does. A document that several cells of a notebook share is opened without `with`,
    and left with its `leave`. It holds a thread while it is open, and twice the memory.
    """
    document = BlockingDocument(name, Doc() if ydoc is None else ydoc, leave_timeout_s)
    document._open(url=url, token=token, timeout_s=timeout_s, frame_bytes_max=frame_bytes_max)
    return document
