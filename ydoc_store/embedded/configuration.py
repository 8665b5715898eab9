"""The configuration of our own Postgres: written anew at every start, in a folder of its own beside the cluster.

An operator's own settings go through `ALTER SYSTEM`, which beats what stands here and is kept with the cluster.
What must never be relaxed (no TCP) is also on the command line, which beats both. The folder can be given to
`pg_ctl -D` as it is, for the day when somebody needs the cluster without ydoc-store.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from ydoc_store.embedded.account import Account
from ydoc_store.embedded.folder import DataFolder

ROLE = "ydoc"
DATABASE = "postgres"
NEVER_TCP = ("-c", "listen_addresses=")

SETTINGS = {
    # Nobody but the owner of the socket's folder, and root, can knock at all.
    "listen_addresses": "''",
    "unix_socket_permissions": "0700",
    # 10 connections of a pool, lanes and a listener for each of several processes, and an operator's psql.
    "max_connections": "50",
    # A laptop notices more; the operating system caches the rest.
    "shared_buffers": "128MB",
    # The promise: an acknowledged update is on the disk.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Bounds the disk beside the data; a busy import then has a checkpoint every few seconds.
    "max_wal_size": "512MB",
    # Every statement of ours is short: compiling it or handing it to workers costs more than it gains.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    # The log is bounded by us; the normal traffic of checkpoints says nothing to a person.
    "log_checkpoints": "off",
    "log_timezone": "'UTC'",
    "timezone": "'UTC'",
    "lc_messages": "'C'",
    "cluster_name": "'ydoc-store'",
}
_HEAD = "# Written by ydoc-store at every start. For settings of your own use ALTER SYSTEM, which beats these.\n"


def write_configuration(folder: DataFolder, account: Account, socket_folder: Path) -> None:
    """postgresql.conf, pg_hba.conf and pg_ident.conf, readable by the account, writable only by us."""
    places = {
        "data_directory": folder.cluster,
        "hba_file": folder.configuration / "pg_hba.conf",
        "ident_file": folder.configuration / "pg_ident.conf",
        "unix_socket_directories": socket_folder,
    }
    settings = SETTINGS | {name: quoted(str(path)) for name, path in places.items()}
    _write(folder.configuration / "postgresql.conf", [f"{name} = {value}" for name, value in settings.items()])
    # The kernel says who is at the other end of a socket, so there is no password to keep.
    _write(places["hba_file"], ["local all all peer map=ydoc", "local replication all peer map=ydoc"])
    users = {account.name, pwd.getpwuid(0).pw_name}
    _write(places["ident_file"], [f'ydoc "{user}" {ROLE}' for user in sorted(users)])


def quoted(value: str) -> str:
    """As a string of postgresql.conf, where a backslash escapes as well."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def address(socket_folder: Path) -> str:
    """The cluster's URL over its socket. The folder's name was chosen so that it needs no quoting."""
    return f"postgresql://{ROLE}@/{DATABASE}?host={socket_folder}"


def _write(path: Path, lines: list[str]) -> None:
    # Replaced as a whole, so that a full disk never leaves half a file behind.
    fresh = path.with_suffix(".new")
    fresh.write_text(_HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    fresh.chmod(0o644)
    os.replace(fresh, path)  # noqa: PTH105 # atomic, and says so
