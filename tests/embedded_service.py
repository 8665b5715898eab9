"""A service that holds an embedded Postgres, as a process of its own that tests may kill.

`python -m tests.embedded_service DATA_DIR [UID PROGRAMS]` prints one line of JSON when Postgres is ready, and
stops when its stdin ends. With UID it gives up root's rights itself, since a test's interpreter may lie where
only root can read it; Postgres's programs are carried to the folder PROGRAMS if they lie there too. An error is
JSON as well.
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


async def serve(data_dir: Path, uid: int | None, programs: Path) -> None:
    binaries = packaged()
    if uid is not None:
        binaries = reachable(binaries, Account("anybody", uid, uid, is_other=True), programs)
        # What asyncio would import later may be out of reach then.
        await asyncio.to_thread(int)
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
    asked = [*sys.argv[1:], None, ""]
    asyncio.run(serve(Path(str(asked[0])), int(asked[1]) if asked[1] else None, Path(str(asked[2]))))
