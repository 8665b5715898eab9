"""Yjs itself as the judge: one long-lived Node process that answers questions about updates.

Questions and answers are one JSON object a line (judge.mjs says which); one takes about a millisecond, so that a
property can ask thousands. The npm packages are installed once, by `npm ci`, where they are missing. Node ends
when its input does: with this process, however that ends.
"""

from __future__ import annotations

import atexit
import base64
import functools
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent


class History(NamedTuple):
    """What random editors sent, in the order in which they sent it, and their client ids."""

    updates: list[bytes]
    clients: list[int]


class Judge:
    """Asks Yjs. Not for use from several threads."""

    def __init__(self) -> None:
        require_npm_packages()
        self._node = subprocess.Popen(["node", "judge.mjs"], cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def history(self, seed: int, *, exotic: bool = True) -> History:
        """A random history of all shared types; the same seed gives the same one.

        `exotic` histories also hold what pycrdt's merge changes: bigints, a subdocument's meta.
        """
        answer = self.ask(op="history", seed=seed, exotic=exotic)
        return History([base64.b64decode(update) for update in answer["updates"]], answer["clients"])

    def difference(
        self,
        left: Sequence[bytes],
        right: Sequence[bytes],
        *,
        collect_garbage: bool = True,
        other_portions: bool = False,
    ) -> str | None:
        """Where documents that apply `left` and `right`, in order, differ; None if nowhere.

        Compared: what is visible, unit by unit with its id; the state vector; the delete set; what is pending, and
        for what, unless both come in `other_portions`, on which that depends.
        """
        answer = self.ask(
            op="compare",
            left=_texts(left),
            right=_texts(right),
            gc=collect_garbage,
            otherPortions=other_portions,
        )
        difference: str | None = answer["difference"]
        return difference

    def describe(self, updates: Sequence[bytes]) -> dict[str, Any]:
        """What a document shows, has and waits for once it has applied `updates` in order."""
        return self.ask(op="describe", updates=_texts(updates))

    def encode(self, updates: Sequence[bytes]) -> bytes:
        """How Yjs encodes a document that has applied `updates` in order."""
        return base64.b64decode(self.ask(op="encode", updates=_texts(updates))["update"])

    def ask(self, **question: Any) -> dict[str, Any]:
        """One question of judge.mjs. Raises RuntimeError where Yjs throws, or Node is gone."""
        stdin, stdout = self._node.stdin, self._node.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("Node was started without pipes")
        stdin.write(json.dumps(question).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"Node ended with {self._node.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"Yjs threw: {answer['error']}")
        return answer

    def close(self) -> None:
        """Ends Node. A second call does nothing."""
        if self._node.stdin is not None:
            self._node.stdin.close()
        if self._node.stdout is not None:
            self._node.stdout.close()
        self._node.wait(timeout=10)


@functools.cache
def shared_judge() -> Judge:
    """The one judge of this test run; it ends with the process."""
    judge = Judge()
    atexit.register(judge.close)
    return judge


def require_npm_packages() -> None:
    """Installs what package-lock.json names unless it is there; RuntimeError says what is missing."""
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    if all((FOLDER / "node_modules" / name / "package.json").is_file() for name in wanted):
        return
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise RuntimeError("these tests need Node 20 or newer with npm: on Debian, `apt-get install nodejs npm`")
    installed = subprocess.run(["npm", "ci"], cwd=FOLDER, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        raise RuntimeError(f"`npm ci` failed in {FOLDER}: {installed.stderr.strip()[-2000:]}")


def _texts(updates: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(update).decode() for update in updates]
