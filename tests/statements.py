"""The SQL constants of a storage module, for the test that has Postgres prepare each of them."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncpg

_BEGINNINGS = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")


def statements_of(module: ModuleType) -> dict[str, str]:
    """Every public UPPER_CASE constant that is a whole statement, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str) and _is_statement(value)
    }


def _is_statement(text: str) -> bool:
    return text.lstrip().startswith(_BEGINNINGS)


async def prepare_all(connection: asyncpg.Connection[asyncpg.Record], module: ModuleType) -> list[str]:
    """The names of the statements that this server accepts; raises asyncpg's error for the first that it does not."""
    statements = statements_of(module)
    for statement in statements.values():
        await connection.prepare(statement)
    return sorted(statements)
