"""`ydoc-store grant-sql`: the SQL of three roles, for an operator to read and run. Which rights is storage's."""

from __future__ import annotations

import click

from ydoc_store.commands.options import DONE
from ydoc_store.storage.roles import Roles, grant_sql

DEFAULT = Roles()


@click.command("grant-sql")
@click.option("--migrations", default=DEFAULT.migrations, show_default=True, help="The role that owns the schema.")
@click.option("--relay", default=DEFAULT.relay, show_default=True, help="The role of `serve --no-compactor`.")
@click.option("--compactor", default=DEFAULT.compactor, show_default=True, help="The role of `ydoc-compactor`.")
def grant_sql_command(*, migrations: str, relay: str, compactor: str) -> int:
    """Print SQL for psql that creates the roles and grants each what it needs."""
    click.echo(grant_sql(Roles(migrations, relay, compactor)), nl=False)
    return DONE
