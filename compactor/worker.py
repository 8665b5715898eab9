"""The parent's side of the compactor's child process: one job at a time, and a new child when one dies.

The event loop here only carries bytes: no merge and no walk of a document ever runs in it. A child that dies, or
takes too long and is killed, fails that one job. The next job starts another child. What the job does is
`worker_process`'s; which documents and when is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

from compactor.fold import Way
from compactor.worker_process import HEAD, HEAD_BYTES_MAX, decode_head, encode_head
from ydoc_store.errors import ServerFault

NICENESS: Final = 10
"""The relay shares the machine: a merge takes what it leaves."""

LARGE_JOB_BYTES: Final = 4 * 2**20
"""A child keeps what a large merge made it allocate, so it is replaced after one."""

_DYING_S: Final = 2.0
_PIECE_BYTES: Final = 2**18
_BOOT: Final = "import sys; sys.path.insert(0, sys.argv[1]); from compactor.worker_process import main; main({}, {})"
_PACKAGE_PARENT: Final = Path(__file__).resolve().parent.parent


class WorkerUnavailable(ServerFault):
    """No child process can be started now: too many files, too little memory. No document's fault."""


@dataclass(frozen=True, slots=True)
class Job:
    """One document's snapshot and packed rows, as `storage.tail` reads them."""

    snapshot: bytes | None
    packed_rows: bytes
    after_seq: int
    keep_deleted: bool
    keep_history: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The new snapshot, verified, with what was found on the way; `segment` is empty unless history is kept."""

    snapshot: bytes
    state_vector: bytes
    delete_set: bytes
    segment: bytes
    way: Way
    doubt: str | None
    row_count: int
    through_seq: int
    update_bytes: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class JobFailed:
    """The document's own failure: its bytes could not be merged, or they killed the child or held it too long."""

    reason: str


class Worker:
    """A long-lived child process, started with its first job. Close it, or use it as an async context."""

    def __init__(self, *, memory_bytes_max: int = 0, timeout_s: float = 120.0, niceness: int = NICENESS):
        self._boot = _BOOT.format(int(memory_bytes_max), int(niceness))
        self._timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def run(self, job: Job) -> Done | JobFailed:
        """The job's result. Jobs take turns. Raises WorkerUnavailable where no child can be started.

        Cancelling kills the child, because its answer would be the next job's.
        """
        async with self._turn:
            process = self._process or await self._start()
            try:
                async with asyncio.timeout(self._timeout_s):
                    head, blobs = await _exchange(process, job)
            except TimeoutError:
                await self._end()
                return JobFailed(f"the worker took longer than {self._timeout_s:.0f} s and was killed")
            except (asyncio.IncompleteReadError, OSError):
                code = await self._bury(process)
                return JobFailed(f"the worker died ({_exit(code)}) while it merged this document")
            except BaseException:
                await self._end()
                raise
            if len(job.packed_rows) + len(job.snapshot or b"") > LARGE_JOB_BYTES:
                await self._end()
        if not head["ok"]:
            return JobFailed(cast(str, head["reason"]))
        return _done(head, blobs)

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return None if self._process is None else self._process.pid

    async def close(self) -> None:
        """End the child; a job that is under way fails."""
        await self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self) -> asyncio.subprocess.Process:
        # The package's own folder comes along, so that a checkout works from any directory.
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                self._boot,
                str(_PACKAGE_PARENT),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_PIECE_BYTES,
            )
        except OSError as error:
            raise WorkerUnavailable(f"the compactor's child process cannot be started: {error}") from error
        return self._process

    async def _bury(self, process: asyncio.subprocess.Process) -> int | None:
        """The exit code of a child that broke off. It is waited for first: killing it would reap it unseen."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DYING_S):
                await process.wait()
        return await self._end()

    async def _end(self) -> int | None:
        """Kill the child if it still lives, and wait until it is gone; returns its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if process.stdin is not None:
            process.stdin.close()
        # Reading to the end lets the pipe's transport close; a killed child has little left in it.
        if process.stdout is not None:
            with contextlib.suppress(OSError):
                await process.stdout.read()
        return await process.wait()


async def _exchange(process: asyncio.subprocess.Process, job: Job) -> tuple[dict[str, Any], list[bytes]]:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise OSError("the worker has no pipes")
    head = {
        "after_seq": job.after_seq,
        "has_snapshot": job.snapshot is not None,
        "keep_deleted": job.keep_deleted,
        "keep_history": job.keep_history,
    }
    blobs = [job.snapshot or b"", job.packed_rows]
    stdin.write(encode_head(head, blobs))
    for blob in blobs:
        await _write(stdin, blob)
    (length,) = HEAD.unpack(await stdout.readexactly(HEAD.size))
    if length > HEAD_BYTES_MAX:
        raise OSError("the worker's answer makes no sense")
    result, lengths = decode_head(await stdout.readexactly(length))
    return result, [await _read(stdout, length) for length in lengths]


# Neither way is a whole blob copied at once: 20 MB of it would stop the event loop for tens of milliseconds.
async def _write(stdin: asyncio.StreamWriter, blob: bytes) -> None:
    view = memoryview(blob)
    for at in range(0, len(view), _PIECE_BYTES):
        stdin.write(view[at : at + _PIECE_BYTES])
        await stdin.drain()


async def _read(stdout: asyncio.StreamReader, length: int) -> bytes:
    pieces = []
    left = length
    while left:
        piece = await stdout.read(min(left, _PIECE_BYTES))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _done(head: dict[str, Any], blobs: list[bytes]) -> Done:
    snapshot, state_vector, delete_set, segment = blobs
    return Done(
        snapshot=snapshot,
        state_vector=state_vector,
        delete_set=delete_set,
        segment=segment,
        way=head["way"],
        doubt=head["doubt"],
        row_count=head["row_count"],
        through_seq=head["through_seq"],
        update_bytes=head["update_bytes"],
        cpu_s=head["cpu_s"],
    )


def _exit(code: int | None) -> str:
    if code is None:
        return "unknown"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
