"""A service that holds an embedded Postgres, as a process of its own that tests may kill.

`python tests/embedded_service.py DATA_DIR [UID]` prints one line of JSON when Postgres is ready, and stops when
its stdin ends. With UID it gives up root's rights first, since a test's interpreter may lie where only root can
read it. An error is printed as JSON too.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from ydoc_store.embedded import EmbeddedPostgres
from ydoc_store.embedded.account import Account
from ydoc_store.embedded.binaries import packaged, reachable
from ydoc_store.errors import EmbeddedPostgresFailed


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


async def serve(data_dir: Path, uid: int | None) -> None:
    binaries = packaged()
    if uid is not None:
        programs = data_dir.parent / "programs"
        programs.mkdir(exist_ok=True)
        binaries = reachable(binaries, Account("anybody", uid, uid, is_other=True), programs)
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    try:
        async with EmbeddedPostgres(data_dir, binaries=binaries) as postgres:
            tell(url=postgres.url, pid=postgres.pid)
            await asyncio.to_thread(sys.stdin.read)
    except EmbeddedPostgresFailed as error:
        tell(error=str(error))


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None))
