"""`connect` for code without a loop: jobs, scripts, notebooks, tests. A thread of its own talks to the server.

pycrdt's documents are not shared between threads. So there are two: the caller's, which only the caller's thread
touches, and one in the thread; they exchange updates. What others edit therefore appears when the caller asks for
it, never under a running computation.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from pycrdt import Doc, TransactionEvent

from ydoc_store.client.connection import Token
from ydoc_store.client.document import FRAME_BYTES_MAX, Document, open_document
from ydoc_store.client.errors import ClientError, Unavailable, Unreadable
from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.join import join
from ydoc_store.yjs.merge import EMPTY_UPDATE, fenced

Returned = TypeVar("Returned")


class BlockingDocument:
    """A document that is open, for one thread at a time. Edits are sent as they are made."""

    def __init__(self, name: str, ydoc: Doc[Any]) -> None:
        self.name = name
        self._ydoc = ydoc
        self._loop: asyncio.AbstractEventLoop
        self._document: Document
        self._mirror: Doc[Any]
        self._is_taking = False
        self._is_applying = False
        self._is_left = False
        # What came from the server and is not in the caller's document yet; guarded, with its condition.
        self._arrived: list[bytes] = []
        self._changed = threading.Condition()

    # In the caller's thread

    @property
    def ydoc(self) -> Doc[Any]:
        """The pycrdt document, with everything that has come by now."""
        self.refresh()
        return self._ydoc

    def refresh(self) -> bool:
        """Take in what others have edited; whether there was anything. What an observer of the document raises comes
        out here, after all of it was applied."""
        with self._changed:
            arrived, self._arrived = self._arrived, []
        if not arrived:
            return False
        self._is_applying = True
        try:
            self._ydoc.apply_update(join(arrived))
        finally:
            self._is_applying = False
        return True

    def wait_for(self, holds: Callable[[Doc[Any]], object], *, timeout_s: float = 30.0) -> None:
        """Returns once `holds(ydoc)` is true, asked again whenever something has come. Raises Unavailable at the
        deadline, and what ends the document."""
        deadline_s = time.monotonic() + timeout_s
        while not holds(self.ydoc):
            with self._changed:
                left_s = deadline_s - time.monotonic()
                if not self._arrived:
                    self._document.raise_end()
                if left_s <= 0:
                    # Also where others never stop editing.
                    raise Unavailable(f"what was waited for did not come within {timeout_s:g} s")
                if not self._arrived:
                    self._changed.wait(left_s)

    def saved(self, *, timeout_s: float | None = 30.0) -> None:
        """Returns when the server has committed everything edited before; raises as `Document.saved` does."""
        if self._ydoc._txn is not None:
            raise RuntimeError("saved() inside a transaction: what it edits is known only when it ends")
        self._call(self._document.saved(timeout_s=timeout_s))

    def show_presence(self, state: Mapping[str, Any] | None) -> None:
        """As `PresenceOfAll.show`."""

        async def show() -> None:
            self._document.presence.show(state)

        self._call(show())

    @property
    def others(self) -> dict[int, dict[str, Any]]:
        """What each of the others shows, by client id."""

        async def others() -> dict[int, dict[str, Any]]:
            return self._document.presence.others

        return self._call(others())

    @property
    def is_connected(self) -> bool:
        """Whether it is in sync with the server at this moment."""
        return self._document.is_connected

    @property
    def may_write(self) -> bool:
        """Whether the token last accepted lets this side edit."""
        return self._document.may_write

    @property
    def ended(self) -> ClientError | None:
        """Why this document is over for good; None while it is not."""
        return self._document.ended

    def _call(self, work: Coroutine[Any, Any, Returned]) -> Returned:
        """In the thread, after everything that was edited here before."""
        if self._is_left:
            work.close()
            raise RuntimeError(f"document {self.name!r} was left")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _edited(self, event: TransactionEvent) -> None:
        update = event.update
        if not self._is_applying and update != EMPTY_UPDATE:
            self._loop.call_soon_threadsafe(self._take, update)

    # In the thread

    def _take(self, update: bytes) -> None:
        self._is_taking = True
        try:
            fenced(self._mirror.apply_update, update)
        except InvalidUpdate as error:
            # Told to whoever asks whether it is saved.
            self._document.end(Unreadable(f"what was edited cannot be sent: {error}"))
        finally:
            self._is_taking = False

    def _heard(self, event: TransactionEvent) -> None:
        update = event.update
        if not self._is_taking and update != EMPTY_UPDATE:
            with self._changed:
                self._arrived.append(update)
                self._changed.notify_all()

    async def _run(
        self, opened: Future[asyncio.Future[BaseException | None]], content: bytes, leave_timeout_s: float, **how: Any
    ) -> None:
        """Open, wait for the caller to leave, and leave."""
        self._loop = asyncio.get_running_loop()
        # Presence is shown under the id with which the caller edits.
        self._mirror = Doc(client_id=how.pop("client_id"))
        if content != EMPTY_UPDATE:
            self._mirror.apply_update(content)
        # Before anything arrives, so that nothing is missed.
        subscription = self._mirror.observe(self._heard)
        try:
            self._document = await open_document(name=self.name, ydoc=self._mirror, **how)
            ending = self._loop.create_task(self._wake_at_the_end())
            left: asyncio.Future[BaseException | None] = self._loop.create_future()
            opened.set_result(left)
            try:
                error = await left
                await self._document.leave(error, leave_timeout_s)
            finally:
                ending.cancel()
        finally:
            self._mirror.unobserve(subscription)

    async def _wake_at_the_end(self) -> None:
        await self._document.wait_ended()
        with self._changed:
            self._changed.notify_all()


@contextmanager
def connect_sync(
    url: str,
    name: str,
    *,
    token: Token = None,
    ydoc: Doc[Any] | None = None,
    timeout_s: float = 30.0,
    leave_timeout_s: float = 10.0,
    frame_bytes_max: int = FRAME_BYTES_MAX,
) -> Iterator[BlockingDocument]:
    """`connect` for code without a loop, and for notebooks, whose loop is not touched: `with connect_sync(…) as doc:`

    Takes and raises what `connect` does. A document holds a thread while it is open, and twice the memory.
    """
    document = BlockingDocument(name, Doc() if ydoc is None else ydoc)
    opened: Future[asyncio.Future[BaseException | None]] = Future()
    ended: Future[None] = Future()
    running = document._run(
        opened,
        document._ydoc.get_update(),
        leave_timeout_s,
        client_id=document._ydoc.client_id,
        url=url,
        token=token,
        timeout_s=timeout_s,
        frame_bytes_max=frame_bytes_max,
    )
    thread = threading.Thread(
        target=_run_in_thread, args=(running, opened, ended), name=f"ydoc-store client of {name!r}", daemon=True
    )
    thread.start()
    try:
        left = opened.result()
    except BaseException:
        # Nobody waits any more, and so it ends as soon as it is open.
        opened.cancel()
        raise
    observed = document._ydoc.observe(document._edited)

    def leave(error: BaseException | None) -> None:
        document._ydoc.unobserve(observed)
        document._is_left = True
        document._loop.call_soon_threadsafe(left.set_result, error)
        ended.result()
        thread.join()

    try:
        document.refresh()
        yield document
    except BaseException as error:
        leave(error)
        raise
    leave(None)
    document.refresh()


def _run_in_thread(
    running: Coroutine[Any, Any, None], opened: Future[asyncio.Future[BaseException | None]], ended: Future[None]
) -> None:
    try:
        asyncio.run(running)
    except BaseException as error:
        for future in (opened, ended):
            if not future.done():
                future.set_exception(error)
    else:
        ended.set_result(None)
