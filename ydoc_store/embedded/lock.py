"""One service a data folder: an advisory lock that the kernel lets go of when its holder dies, however it dies.

The file names the holder's process id for the person who is told that the folder is taken. It is never removed:
a second service could otherwise lock a file that a third one no longer sees.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import weakref
from pathlib import Path

from ydoc_store.errors import EmbeddedPostgresFailed

GLANCE_S = 1.0

_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """Held from the constructor to `release`.

    It may block for `GLANCE_S`. Raises EmbeddedPostgresFailed, naming the holder, when another process or another
    part of this one holds it.
    """

    def __init__(self, path: Path) -> None:
        # The folder may belong to a less trusted account than ours: never follow a link that it left here.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            self._take(path)
        except BaseException:
            self.forget()
            raise
        _held.add(self)
        # A full disk only costs the holder's name; what it means for the rest is told elsewhere.
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def _take(self, path: Path) -> None:
        deadline = time.monotonic() + GLANCE_S
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                holder = os.pread(self._file, 32, 0).decode(errors="replace").strip()
                # A command that only asks whether a service runs holds it for an instant, without its name.
                if not holder and time.monotonic() < deadline:
                    time.sleep(GLANCE_S / 20)
                    continue
            except OSError as error:
                raise EmbeddedPostgresFailed(
                    f"{path.parent} is on a file system without file locks ({error.strerror}): "
                    "choose a --data-dir on a local disk"
                ) from error
            raise EmbeddedPostgresFailed(
                f"the data folder {path.parent} is in use by another ydoc-store, process {holder or 'unknown'}: "
                "stop that one, or give this one another --data-dir"
            )

    def release(self) -> None:
        if self._file < 0:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
        self.forget()

    def forget(self) -> None:
        """Close our end only: the lock itself stays with whoever else has the file open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _forget_in_forked_child() -> None:
    # A forked worker would go on holding the lock after its parent was killed.
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_forked_child)
