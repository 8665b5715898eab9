"""Least privilege as SQL: who migrates, who relays, who compacts, and what each may touch.

The relay cannot delete an update, the compactor cannot write one, and neither can change the schema. The text is
printed for an operator to read and run, as the schema's owner; running it again brings older grants up to date. A
test holds that every table of the schema is named here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ydoc_store.errors import SettingInvalid

# What an append changes of a head row, and what a deletion, a new epoch and a new name do; locking it needs no more.
_HEAD_COLUMNS: Final = (
    "head, accepted_rows, accepted_bytes, changed_at, closed_at, stream_seq, deleted_at, replaced_at, name"
)

RELAY: Final[dict[str, str]] = {
    "migrations": "SELECT",
    "documents": f"SELECT, INSERT, UPDATE ({_HEAD_COLUMNS})",
    "updates": "SELECT, INSERT",
    "producers": "SELECT, INSERT, UPDATE",
    "streams": "SELECT, INSERT, UPDATE (used_at)",
    "stream_epochs": "SELECT",
    "snapshots": "SELECT",
    "segments": "SELECT",
    "compactions": "SELECT",
    # A new epoch begins without the failures of the old.
    "quarantines": "SELECT, DELETE",
    "revocations": "SELECT, INSERT, DELETE",
    "commits": "SELECT, INSERT",
    "timelines": "SELECT, INSERT",
    "incarnation": "SELECT",
}
COMPACTOR: Final[dict[str, str]] = {
    "migrations": "SELECT",
    # Of a document that is purged the tombstone stays; those of streams go by a function.
    "documents": "SELECT, UPDATE (purged_at, head, accepted_rows, accepted_bytes)",
    "updates": "SELECT, DELETE",
    # What is purged is read FOR UPDATE, which takes the right to update a column.
    "producers": "SELECT, UPDATE (last_at), DELETE",
    "streams": "SELECT, UPDATE (expired_at, purged_at)",
    "stream_epochs": "",
    "snapshots": "SELECT, INSERT, UPDATE, DELETE",
    "segments": "SELECT, INSERT, DELETE",
    "compactions": "SELECT, INSERT, DELETE",
    "quarantines": "SELECT, INSERT, UPDATE, DELETE",
    "revocations": "",
    "commits": "SELECT, INSERT, DELETE",
    "timelines": "",
    "incarnation": "",
}
_DROP_TOMBSTONES: Final = "ydoc.drop_stream_tombstones(integer, integer)"
_ROLE: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Roles:
    """The names of the three roles. Raises SettingInvalid for one that would have to be quoted."""

    migrations: str = "ydoc_migrations"
    relay: str = "ydoc_relay"
    compactor: str = "ydoc_compactor"

    def __post_init__(self) -> None:
        for name in (self.migrations, self.relay, self.compactor):
            if _ROLE.fullmatch(name) is None:
                raise SettingInvalid(f"{name!r} is no role's name: lower-case letters, digits and _, 63 at most")


def grant_sql(roles: Roles) -> str:
    """Creates the roles where they are missing, without a login, and grants each what it needs and nothing else."""
    parts = [_create(role) for role in (roles.migrations, roles.relay, roles.compactor)]
    parts.append(
        f"-- {roles.migrations} owns the schema: log in as a member of it for `ydoc-store migrate`\n"
        f"ALTER SCHEMA ydoc OWNER TO {roles.migrations};\n"
        + "\n".join(f"ALTER TABLE ydoc.{table} OWNER TO {roles.migrations};" for table in RELAY)
        + f"\nALTER FUNCTION ydoc.newest_xid() OWNER TO {roles.migrations};\n"
        f"ALTER FUNCTION ydoc.refuse_snapshot_of_stream() OWNER TO {roles.migrations};\n"
        f"ALTER FUNCTION {_DROP_TOMBSTONES} OWNER TO {roles.migrations};\n"
    )
    parts.append(_grants(roles.relay, RELAY, "serves editors: it appends and reads, and deletes no update"))
    parts.append(
        _grants(roles.compactor, COMPACTOR, "merges: it deletes what it merged, and writes no update")
        + f"GRANT EXECUTE ON FUNCTION {_DROP_TOMBSTONES} TO {roles.compactor};\n"
    )
    return "\n".join(parts)


def _create(role: str) -> str:
    return f"DO $$ BEGIN\n    CREATE ROLE {role} NOLOGIN;\nEXCEPTION WHEN duplicate_object THEN NULL;\nEND $$;\n"


def _grants(role: str, tables: dict[str, str], what: str) -> str:
    lines = [
        f"-- {role} {what}",
        f"REVOKE ALL ON SCHEMA ydoc FROM {role};",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA ydoc FROM {role};",
        f"GRANT USAGE ON SCHEMA ydoc TO {role};",
    ]
    lines += [f"GRANT {rights} ON ydoc.{table} TO {role};" for table, rights in tables.items() if rights]
    return "\n".join(lines) + "\n"
