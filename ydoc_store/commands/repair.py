"""`ydoc-store repair`: a document rebuilt as it was at a seq, as a new epoch that nobody's old copy can write to.

How the content is made and verified belongs to the compactor's fold, which is handed in; the switch is storage's.
Here is what is read, compared and told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import orjson

from ydoc_store.commands.options import DONE, DocumentName, json_option, tenant_option, with_database
from ydoc_store.commands.output import counted, emit_json, emit_row, size
from ydoc_store.errors import InvalidUpdate
from ydoc_store.settings import Settings
from ydoc_store.storage.epochs import Content, NewEpoch, replace_content
from ydoc_store.storage.past import Past, read_past
from ydoc_store.storage.pool import Database
from ydoc_store.yjs.document import decode_check, to_json
from ydoc_store.yjs.join import join
from ydoc_store.yjs.markers import without_markers
from ydoc_store.yjs.merge import fenced

# The verified merge and fold of updates; the second argument keeps deleted content. Raises InvalidUpdate.
Rebuild = Callable[[Sequence[bytes], bool], Content]


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair does, or would do: from which epoch and seq, and how the content differs from that at the head.

    History of that epoch can be replayed from `earliest_seq` to `head`. Characters are of the document as JSON has
    it: `characters_dropped` of those at the head go, `characters_restored` come in their place; None where one of the
    two cannot be shown.
    """

    epoch: int
    head: int
    earliest_seq: int | None
    to_seq: int
    updates: int
    size_bytes: int
    size_bytes_at_head: int | None
    way: str | None
    has_pending: bool
    characters: int | None
    characters_dropped: int | None
    characters_restored: int | None


def repair_command(rebuild: Rebuild) -> click.Command:
    """The command, over what the composition root knows of merging."""

    @click.command("repair")
    @click.argument("name", type=DocumentName())
    @click.option("--to-seq", type=click.IntRange(min=0), required=True, metavar="N", help="The last update to keep.")
    @click.option(
        "--epoch", type=click.IntRange(min=1), help="Of this epoch, where an earlier repair went too far back."
    )
    @click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
    @tenant_option
    @json_option
    @with_database
    async def command(
        database: Database,
        _settings: Settings,
        /,
        *,
        name: str,
        to_seq: int,
        epoch: int | None,
        dry_run: bool,
        tenant: str,
        as_json: bool,
    ) -> int:
        """Rebuild a document as it was at a seq, from its log and history, as a new epoch."""
        past = await read_past(database, tenant, name, to_seq, epoch=epoch)
        content, repair = prepare(past, rebuild)
        if dry_run:
            emit_row({"name": name, "dry_run": True, **asdict(repair)}, as_json=as_json)
            return DONE
        new = await replace_content(database, tenant, name, content, epoch=past.current_epoch)
        _tell(name, repair, new, as_json=as_json)
        return DONE

    return command


def prepare(past: Past, rebuild: Rebuild) -> tuple[Content | None, Repair]:
    """The new epoch's content (None: nothing), verified, and what is told of it. Raises InvalidUpdate."""
    updates = [without_markers(update) for update in past.updates]
    content = rebuild(updates, past.keep_deleted) if updates else None
    update = content.update if content is not None else join([])
    then = _text(update)
    now_bytes, now = _at_head(past)
    same = 0 if then is None or now is None else _common(then, now)
    return content, Repair(
        epoch=past.epoch,
        head=past.head,
        earliest_seq=past.earliest_seq,
        to_seq=past.seq,
        updates=len(updates),
        size_bytes=0 if content is None else len(update),
        size_bytes_at_head=now_bytes,
        way=None if content is None else content.way,
        has_pending=decode_check(update).has_pending,
        characters=None if then is None else len(then),
        characters_dropped=None if then is None or now is None else len(now) - same,
        characters_restored=None if then is None or now is None else len(then) - same,
    )


def _at_head(past: Past) -> tuple[int | None, str | None]:
    if past.at_head is None:
        return None, None
    try:
        update = join(past.at_head)
        return len(update), _text(update)
    except InvalidUpdate:
        return None, None


def _text(update: bytes) -> str | None:
    # For people alone: native code that fails on what it shows must not stand in the way of the repair.
    try:
        return orjson.dumps(fenced(to_json, update)).decode()
    except (InvalidUpdate, orjson.JSONEncodeError):
        return None


def _common(one: str, other: str) -> int:
    """How many characters the two share at their beginning and their end."""
    head = _prefix(one, other)
    return head + _prefix(one[head:][::-1], other[head:][::-1])


def _prefix(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _tell(name: str, repair: Repair, new: NewEpoch, *, as_json: bool) -> None:
    left_behind = new.replaced_head - repair.to_seq if new.replaced_epoch == repair.epoch else None
    if as_json:
        row: dict[str, Any] = {"name": name, "dry_run": False, **asdict(repair)}
        emit_json({**row, "new_epoch": new.epoch, "new_document_id": new.document_id, "left_behind": left_behind})
        return
    click.echo(
        f"{name}: is epoch {new.epoch} now, as epoch {repair.epoch} was at seq {repair.to_seq:,} "
        f"({size(repair.size_bytes)}); its editors are closed with 4409"
    )
    if left_behind:
        click.echo(
            f"{counted(left_behind, 'update')} behind that stay in epoch {repair.epoch} until it is purged: "
            f"`ydoc-store repair {name} --epoch {repair.epoch} --to-seq {new.replaced_head}` brings them back",
            err=True,
        )
    if repair.has_pending:
        click.echo("some of it waits for updates that have not come, as it did then", err=True)
