"""`ydoc-store secret`, `token`, `revoke`, `revocations`: who gets in, by hand.

A token is made with the secret that the service judges by. What was taken back is a row that every node reads.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import asdict
from typing import Any

import click

from ydoc_store.auth.access import Access
from ydoc_store.auth.tokens import sign_token
from ydoc_store.commands.options import DONE, FOUND_SOMETHING_WRONG, json_option, with_database, with_settings
from ydoc_store.commands.output import emit_rows
from ydoc_store.errors import SettingInvalid
from ydoc_store.names import DEFAULT_TENANT
from ydoc_store.settings import Settings
from ydoc_store.storage.pool import Database
from ydoc_store.storage.revocations import Kind, delete_revocation, insert_revocation, list_revocations

SECRET_BYTES = 48
_DURATION = re.compile(r"(\d+)\s*(s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
COLUMNS = ("id", "tenant", "kind", "value", "before", "created_at")


class Duration(click.ParamType[float]):
    """Seconds, from `90s`, `15m`, `1h` or `7d`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = _DURATION.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no duration: write 90s, 15m, 1h or 7d", param, ctx)
        return float(int(found[1]) * _SECONDS[found[2]])


class Grant(click.ParamType[tuple[str, str]]):
    """A pattern and what it gives, from `team/*=write`."""

    name = "pattern=access"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        pattern, equals, word = str(value).rpartition("=")
        if not equals or not pattern or Access.parse(word) is None:
            self.fail(f"{value!r} is no grant: write PATTERN=read, PATTERN=write or PATTERN=admin", param, ctx)
        return pattern, word


@click.group("secret")
def secret_command() -> None:
    """Secrets for YDOC_JWT_SECRET."""


@secret_command.command("new")
def new_command() -> int:
    """Print a new one, which nobody can guess."""
    click.echo(secrets.token_urlsafe(SECRET_BYTES))
    return DONE


@click.command("token")
@click.option("--user", required=True, help="Whose it is: the claim `sub`, written beside their updates.")
@click.option("--name", help="What others are shown of them.")
@click.option("--grant", "grants", type=Grant(), multiple=True, required=True, help="PATTERN=read|write|admin, often.")
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose documents.")
@click.option("--expires", "lifetime_s", type=Duration(), default="1h", show_default=True, help="90s, 15m, 1h or 7d.")
@with_settings
def token_command(
    settings: Settings,
    /,
    *,
    user: str,
    name: str | None,
    grants: tuple[tuple[str, str], ...],
    tenant: str,
    lifetime_s: float,
) -> int:
    """Print a token for YDOC_JWT_SECRET's service."""
    if settings.jwt_secret is None:
        raise SettingInvalid("YDOC_JWT_SECRET is not set: a token is signed with the service's own secret")
    if lifetime_s > settings.token_lifetime_max_s:
        raise SettingInvalid(
            f"--expires is over {settings.token_lifetime_max_s:g} s, and would be refused (YDOC_TOKEN_LIFETIME_MAX_S)"
        )
    now_s = int(time.time())
    claims: dict[str, Any] = {"sub": user, "tenant": tenant, "iat": now_s, "exp": now_s + int(lifetime_s)}
    if name is not None:
        claims["name"] = name
    if settings.jwt_audience is not None:
        claims["aud"] = settings.jwt_audience
    if settings.jwt_issuer is not None:
        claims["iss"] = settings.jwt_issuer
    claims["documents"] = dict(grants)
    click.echo(sign_token(settings.jwt_secret.get_secret_value(), claims))
    return DONE


@click.command("revoke")
@click.option("--user", help="Everything that this user holds.")
@click.option("--document", help="Everyone's access to this document.")
@click.option("--all", "whole_tenant", is_flag=True, help="Everyone's access to everything of the tenant.")
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True)
@json_option
@with_database
async def revoke_command(
    database: Database,
    settings: Settings,
    /,
    *,
    user: str | None,
    document: str | None,
    whole_tenant: bool,
    tenant: str,
    as_json: bool,
) -> int:
    """Refuse, on every node within seconds, what was issued until now."""
    kind: Kind
    chosen = [one for one in (user, document) if one is not None]
    if len(chosen) + whole_tenant != 1:
        raise click.UsageError("name one of --user, --document and --all")
    kind = "user" if user is not None else "document" if document is not None else "tenant"
    value = "".join(chosen)
    made = await insert_revocation(database, tenant, kind, value, None, lifetime_s_max=settings.token_lifetime_max_s)
    emit_rows([asdict(made)], as_json=as_json, columns=COLUMNS)
    return DONE


@click.group("revocations")
def revocations_command() -> None:
    """What was taken back and still counts."""


@revocations_command.command("list")
@json_option
@with_database
async def list_command(database: Database, settings: Settings, /, *, as_json: bool) -> int:
    """All of them, oldest first."""
    found = await list_revocations(database, lifetime_s_max=settings.token_lifetime_max_s)
    emit_rows([asdict(one) for one in found], as_json=as_json, columns=COLUMNS)
    return DONE


@revocations_command.command("remove")
@click.argument("revocation_id", type=int, metavar="ID")
@with_database
async def remove_command(database: Database, _settings: Settings, /, *, revocation_id: int) -> int:
    """Let in again who was refused by it."""
    if not await delete_revocation(database, revocation_id):
        click.echo(f"there is no revocation {revocation_id}", err=True)
        return FOUND_SOMETHING_WRONG
    return DONE
