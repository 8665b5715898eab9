"""Work on large documents, outside this process: pycrdt never releases the interpreter.

A merge, a diff or a walk of some megabytes in the event loop would delay every document. Small inputs are worked
on here and now, since handing them over costs more than the work. Pure functions, named at the top level so that
a worker process can find them; the pool is made when it is first needed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import ParamSpec, TypeVar

from ydoc_store.errors import Draining, StorageBusy
from ydoc_store.yjs.join import join
from ydoc_store.yjs.lib0 import frames
from ydoc_store.yjs.merge import diff, state_vector_of
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.split import split
from ydoc_store.yjs.union import diff_exactly
from ydoc_store.yjs.walker import UpdateLimits, walk

# About 10 ms of work in the event loop; a round trip to a warm worker takes 1 to 2 ms.
INLINE_BYTES_MAX = 128 * 1024

# The largest document is cut in some seconds; a stock client gives up on a silent socket after 30 s.
TIMEOUT_S = 60.0
# What the worker is at, and what is handed over meanwhile. Whoever waits for these is not timed: a long queue, which
# one reader of a large document can make, is no worker that hangs, and nobody's work is to be lost for it.
HANDED_OVER_MAX = 2

try:
    import resource
except ImportError:  # absent on Windows
    resource = None  # type: ignore[assignment]

P = ParamSpec("P")
T = TypeVar("T")


class Heavy:
    """One worker process for what is too large for the event loop."""

    def __init__(self, timeout_s: float = TIMEOUT_S, memory_bytes_max: int = 0) -> None:
        self.timeout_s = timeout_s
        self._memory_bytes_max = memory_bytes_max
        self._pool: ProcessPoolExecutor | None = None
        self._aside: Heavy | None = None
        self._turns = asyncio.Semaphore(HANDED_OVER_MAX)
        self._is_stopped = False

    @property
    def aside(self) -> Heavy:
        """A second worker, for what may take seconds: no load and no first sync waits behind it. Ends with this one."""
        if self._aside is None:
            self._aside = Heavy(self.timeout_s, self._memory_bytes_max)
        return self._aside

    async def run(self, size_bytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(*args)`, here when `size_bytes` is small, else in the worker.

        A worker that dies (out of memory) or hangs fails the calls that it has, with StorageBusy, and is replaced.
        Cancelling abandons the result. Raises Draining for what was not handed over before `stop`.
        """
        if size_bytes <= INLINE_BYTES_MAX:
            return work(*args, **kwargs)
        async with self._turns:
            if self._is_stopped:
                raise Draining("this process is stopping")
            return await self._run_there(work, *args, **kwargs)

    async def _run_there(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        pool = self._started()
        try:
            async with asyncio.timeout(self.timeout_s):
                return await asyncio.wrap_future(pool.submit(work, *args, **kwargs))
        except MemoryError as error:
            # It goes on, and so does everyone else.
            raise StorageBusy("preparing a large document took more memory than the worker may have") from error
        except (BrokenExecutor, TimeoutError) as error:
            # A worker that hangs holds up every load and first sync behind it; killing it breaks its pool.
            if isinstance(error, TimeoutError) and self._pool is pool:
                _kill_worker(pool)
            if self._pool is pool:
                self._pool = None
                pool.shutdown(wait=False)
            raise StorageBusy("the worker that prepares large documents died; it is replaced") from error

    async def warm(self) -> None:
        """Start the worker now: a process takes a third of a second to start, and the first reader would wait."""
        await asyncio.wrap_future(self._started().submit(_ignore_interrupts))

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            limits = (self._memory_bytes_max,)
            self._pool = ProcessPoolExecutor(1, mp_context=_Spawning(), initializer=_begin, initargs=limits)
        return self._pool

    def stop(self) -> None:
        self._is_stopped = True
        if self._aside is not None:
            self._aside.stop()
        if self._pool is not None:
            # Its result is nobody's any more. Its semaphores are given back before this returns: a host such as uvicorn
            # may end by a signal right behind it, and Python would then warn of what was left.
            _kill_worker(self._pool)
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _kill_worker(pool: ProcessPoolExecutor) -> None:
    # Not every child of this process: a host has its own, and another mount has one like this.
    for worker in list((pool._processes or {}).values()):
        worker.kill()


class _Worker(SpawnProcess):
    """A spawned process that a daemon of `multiprocessing`, such as a worker of hypercorn, may start too."""

    def start(self) -> None:
        # It is refused because a daemon's children would outlive it; this one ends with its parent.
        config = multiprocessing.current_process()._config  # type: ignore[attr-defined] # public is a check alone
        is_daemon = config.pop("daemon", None)
        try:
            super().start()
        finally:
            if is_daemon is not None:
                config["daemon"] = is_daemon


class _Spawning(SpawnContext):
    Process = _Worker


def _begin(memory_bytes_max: int) -> None:
    _ignore_interrupts()
    if memory_bytes_max and resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
    threading.Thread(target=_end_with_parent, daemon=True, name="parent watch").start()


def _end_with_parent() -> None:
    # A service that is killed ends nobody: its worker would wait for ever, and hold its memory and its output open.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _ignore_interrupts() -> None:
    # Ctrl-C reaches every process of the terminal; this one is ended by the service that owns it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def digest_tail(rows: Sequence[bytes], limits: UpdateLimits) -> tuple[bytes, Knowledge]:
    """The rows' frames joined into one update, and what it holds. `limits` are the walker's."""
    joined = join([update for row in rows for update in frames(row)])
    return joined, knowledge_of(joined, limits)


def knowledge_of(update: bytes, limits: UpdateLimits) -> Knowledge:
    knowledge = Knowledge()
    knowledge.add(walk(update, limits))
    return knowledge


def behind_gaps(snapshot: bytes) -> bytes | None:
    """What a snapshot holds beyond its own state vector, as an update: structs that wait for others. None: nothing."""
    beyond = diff(snapshot, state_vector_of(snapshot))
    return None if beyond.startswith(b"\0") else beyond


def cut_pieces(parts: Sequence[bytes], vector: Mapping[int, int] | None, piece_bytes_max: int) -> list[bytes]:
    """What a reader at `vector` (None: at nothing) lacks of `parts`, in pieces that a slow link can carry."""
    lacking = parts if vector is None else [diff_exactly(part, vector) for part in parts]
    return [piece for update in lacking for piece in split(update, piece_bytes_max)]
