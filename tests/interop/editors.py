"""Editors with the stock npm provider, in a Node process that a test drives, and may kill.

`editors.mjs` says what can be asked. A question is answered when what it asks for has happened, so that a test
waits for signals only; one that never happens fails at its time-out, with everything the editor was told.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.interop.yjs_judge import require_npm_packages

FOLDER = Path(__file__).parent
ANSWER_TIMEOUT_S = 30.0


class Editor:
    """One `Y.Doc` with one `WebsocketProvider`. Its text is the root `text` unless another is named."""

    def __init__(self, editors: Editors, name: str) -> None:
        self._editors = editors
        self.name = name

    async def ask(self, op: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **options: Any) -> dict[str, Any]:
        """One operation of editors.mjs on this editor."""
        return await self._editors.ask(op, timeout_s=timeout_s, editor=self.name, **options)

    async def type(self, text: str, at: int | None = None) -> None:
        await self.ask("type", text=text, at=at)

    async def erase(self, at: int, length: int) -> None:
        await self.ask("erase", at=at, length=length)

    async def text(self, root: str = "text") -> str:
        return str((await self.ask("text", root=root))["text"])

    async def shows(self, text: str, *, root: str = "text", timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Returns as soon as this is exactly its text."""
        await self.ask("untilText", text=text, root=root, timeout_s=timeout_s)

    async def shows_others(self, *presence: dict[str, Any], timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Returns as soon as exactly these are present beside itself."""
        await self.ask("untilPresence", presence=presence, timeout_s=timeout_s)

    async def synced(self, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        await self.ask("untilSynced", timeout_s=timeout_s)

    async def saved(self, *, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Hocuspocus only: returns when the provider says that it has no unsynced changes."""
        await self.ask("untilSaved", timeout_s=timeout_s)

    async def disconnect(self) -> None:
        await self.ask("disconnect")
        await self.ask("untilDisconnected")

    async def connect(self) -> None:
        await self.ask("connect")

    async def state(self) -> bytes:
        """Everything that it has, as one update, what cannot be applied yet included."""
        return base64.b64decode((await self.ask("state"))["update"])

    async def apply(self, update: bytes) -> None:
        """What a copy that was kept brings."""
        await self.ask("apply", update=base64.b64encode(update).decode())

    async def keep_marking(self, journal: Path, prefix: str, every_ms: int) -> None:
        """Type `<prefix.0>`, `<prefix.1>`, … one insert each, and write each attempt to the journal before."""
        await self.ask("keepMarking", journal=str(journal), prefix=prefix, everyMs=every_ms)

    async def note_seen(self, journal: Path) -> None:
        """From now on write every marker that comes from others to the journal: it was seen."""
        await self.ask("noteSeen", journal=str(journal))

    async def note_saved(self, journal: Path) -> None:
        """Hocuspocus only: from now on what it marks goes to the journal as acked once its provider calls it saved."""
        await self.ask("noteSaved", journal=str(journal))

    async def stop_typing(self) -> None:
        await self.ask("stopTyping")

    async def destroy(self) -> None:
        await self.ask("destroy")

    async def leave(self) -> None:
        await self.destroy()


class Editors:
    """One Node process full of editors."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, script: str) -> Editors:
        await asyncio.to_thread(require_npm_packages)
        process = await asyncio.create_subprocess_exec(
            "node",
            script,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=FOLDER,
            # One answer may hold a whole document's text.
            limit=2**30,
        )
        return cls(process)

    async def open(
        self, url: str, room: str, name: str | None = None, *, timeout_s: float = ANSWER_TIMEOUT_S, **options: Any
    ) -> Editor:
        """A new editor in a room; it connects at once unless told `connect=False`."""
        editor = Editor(self, name or f"editor {next(self._numbers)}")
        await editor.ask("open", timeout_s=timeout_s, url=url, room=room, **options)
        return editor

    async def open_hocuspocus(self, url: str, room: str, name: str | None = None, **options: Any) -> Editor:
        """A new editor with the stock Hocuspocus provider; those with the same `socket` share one."""
        editor = Editor(self, name or f"editor {next(self._numbers)}")
        await editor.ask("openHocuspocus", url=url, room=room, **options)
        return editor

    async def open_durable(self, url: str, room: str, name: str | None = None, **options: Any) -> Editor:
        """A new editor with the stock provider of Durable Streams, that has had its first sync."""
        editor = Editor(self, name or f"editor {next(self._numbers)}")
        await editor.ask("openDurable", url=url, room=room, **options)
        await editor.synced()
        return editor

    async def open_electric(self, url: str, room: str, name: str | None = None, **options: Any) -> Editor:
        """A new editor with ElectricSQL's stock provider, whose `url` is the server's own; `sse` has it take events."""
        editor = Editor(self, name or f"editor {next(self._numbers)}")
        await editor.ask("openElectric", url=url, room=room, **options)
        return editor

    async def open_synced(self, url: str, room: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **options: Any) -> Editor:
        """A new editor that has had its first sync."""
        editor = await self.open(url, room, **options)
        await editor.synced(timeout_s=timeout_s)
        return editor

    async def ask(self, op: str, *, timeout_s: float = ANSWER_TIMEOUT_S, **options: Any) -> dict[str, Any]:
        """One operation of editors.mjs; AssertionError with its trace when it throws, or does not happen in time."""
        number = next(self._numbers)
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answered
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "op": op, **options}).encode() + b"\n")
        try:
            async with asyncio.timeout(timeout_s):
                answer: dict[str, Any] = await answered
        except TimeoutError:
            raise AssertionError(f"{op} did not happen within {timeout_s:g} s: {str(options)[:500]}") from None
        finally:
            self._asked.pop(number, None)
        assert "error" not in answer, answer["error"]
        return answer

    async def show_the_same(self, *editors: Editor, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Returns as soon as these show and know the same: all that any of them has sent has reached the others."""
        await self.ask("untilSame", names=[editor.name for editor in editors], timeout_s=timeout_s)

    async def kill(self) -> None:
        """kill -9: no editor says goodbye."""
        self._process.kill()
        await self._ended()

    async def close(self) -> None:
        """Ends Node; a second call, or one after `kill`, does nothing."""
        if self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                async with asyncio.timeout(30):
                    await self._ended()
            except TimeoutError:
                await self.kill()

    async def _ended(self) -> None:
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            asked = self._asked.get(answer.pop("id"))
            if asked is not None and not asked.done():
                asked.set_result(answer)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(AssertionError("the editors' process has ended"))


@contextlib.asynccontextmanager
async def editing(script: str = "editors.mjs") -> AsyncIterator[Editors]:
    """A Node process for editors, ended with the block; `browser.mjs` has those of a real browser."""
    editors = await Editors.start(script)
    try:
        yield editors
    finally:
        await editors.close()
