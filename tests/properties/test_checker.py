"""The checker under attack: folds of random histories, each damaged in every way in which a fold could go wrong.

A damage is one change of one record, or of the delete set, wherever it can be made. What it makes must be refused.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.interop.yjs_judge import shared_judge
from ydoc_store.yjs.checker import FoldMismatch, check_fold
from ydoc_store.yjs.fold import fold
from ydoc_store.yjs.structs import Ranges, Struct, StructUpdate, join_ranges, read_update, write_update
from ydoc_store.yjs.union import merge_exactly
from ydoc_store.yjs.walker import ANY, DELETED, GC, SKIP, STRING, TYPE

SEEDS = st.integers(min_value=0, max_value=2**32 - 1)
STRANGER = 2**50 + 3
ONE_VALUE = b"\x7e"  # null

Block = list[Struct]
Damage = Callable[[int, Block, int], Block | None]
"""The block of a client, damaged at an index; None where that damage cannot be done there."""


def changed(struct: Struct, **fields: Any) -> Struct:
    return Struct(**{name: fields.get(name, getattr(struct, name)) for name in Struct.__slots__})


def is_item(struct: Struct) -> bool:
    return struct.kind not in (GC, SKIP)


def put(block: Block, at: int, *structs: Struct, instead_of: int = 1) -> Block:
    return [*block[:at], *structs, *block[at + instead_of :]]


def an_id_is_lost(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    if at == len(block) - 1:
        return block[:at] if at else None
    return None if struct.kind == SKIP else put(block, at, Struct(struct.clock, struct.end, SKIP))


def a_struct_is_left_out(_client: int, block: Block, at: int) -> Block | None:
    # What follows then has other clocks, since those are not encoded.
    return block[:at] + block[at + 1 :] if 0 < at < len(block) - 1 else None


def a_run_is_longer(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    return put(block, at, changed(struct, end=struct.end + 1)) if struct.kind in (GC, SKIP, DELETED) else None


def another_origin(client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    return (
        put(block, at, changed(struct, origin=(STRANGER, 0), parent=None, parent_key=None)) if is_item(struct) else None
    )


def an_origin_one_before(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    if not is_item(struct) or struct.origin is None or struct.origin[1] == 0:
        return None
    return put(block, at, changed(struct, origin=(struct.origin[0], struct.origin[1] - 1)))


def no_origin(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    return put(block, at, changed(struct, origin=None, right_origin=None, parent="text")) if struct.origin else None


def another_right_origin(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    if not is_item(struct):
        return None
    right = None if struct.right_origin else (STRANGER, 0)
    if struct.origin is None:
        right = (STRANGER, 1)
    return put(block, at, changed(struct, right_origin=right, parent=None, parent_key=None))


def another_parent(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    return None if struct.parent is None else put(block, at, changed(struct, parent="somewhere else"))


def a_parent_by_id(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    return None if struct.parent is None else put(block, at, changed(struct, parent=(STRANGER, 7)))


def another_key(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    if struct.parent is None:
        return None
    return put(block, at, changed(struct, parent_key=None if struct.parent_key is not None else "k"))


def live_content_is_dropped(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    if not is_item(struct) or struct.kind in (DELETED, TYPE):
        return None
    return put(block, at, changed(struct, kind=DELETED, payload=b""))


def an_item_becomes_gc(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    return put(block, at, Struct(struct.clock, struct.end, GC)) if is_item(struct) else None


def other_content(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    if struct.kind == STRING:
        text = "".join("y" if letter == "x" else "x" for letter in struct.payload.decode())
        units = struct.end - struct.clock
        return put(block, at, changed(struct, payload=(text + "x" * units)[:units].encode()))
    if struct.kind == ANY:
        values = ONE_VALUE * (struct.end - struct.clock)
        return put(block, at, changed(struct, payload=values)) if struct.payload != values else None
    if struct.kind == TYPE:
        return put(block, at, changed(struct, payload=b"\x02" if struct.payload == b"\x01" else b"\x01"))
    if is_item(struct) and struct.kind != DELETED:
        return put(block, at, Struct(*_place(struct, STRING), payload=b"x"))
    return None


def one_letter_is_another(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    if struct.kind != STRING or not struct.payload.isascii():
        return None
    last = b"b" if struct.payload.endswith(b"a") else b"a"
    return put(block, at, changed(struct, payload=struct.payload[:-1] + last))


def deleted_content_is_invented(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    if struct.kind != DELETED:
        return None
    return put(block, at, changed(struct, kind=STRING, payload=b"\x07" * (struct.end - struct.clock)))


def a_gap_is_filled(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    return put(block, at, changed(struct, kind=GC)) if struct.kind == SKIP else None


def a_gc_run_comes_back(_client: int, block: Block, at: int) -> Block | None:
    struct = block[at]
    return put(block, at, Struct(struct.clock, struct.end, DELETED, parent="text")) if struct.kind == GC else None


def neighbours_swap_their_content(_client: int, block: Block, at: int) -> Block | None:
    if at + 1 == len(block):
        return None
    left, right = block[at], block[at + 1]
    same_shape = left.end - left.clock == right.end - right.clock and left.kind == right.kind
    if not is_item(left) or not same_shape or left.payload == right.payload:
        return None
    swapped = changed(left, payload=right.payload), changed(right, payload=left.payload)
    return put(block, at, *swapped, instead_of=2)


def neighbours_join_that_were_not_typed_in_one_go(_client: int, block: Block, at: int) -> Block | None:
    if at + 1 == len(block):
        return None
    left, right = block[at], block[at + 1]
    if left.kind != right.kind or left.kind not in (STRING, ANY, DELETED):
        return None  # a fold has joined all that may be, so that any two that are left may not
    return put(block, at, changed(left, end=right.end, payload=left.payload + right.payload), instead_of=2)


def _place(struct: Struct, kind: int) -> tuple[Any, ...]:
    return struct.clock, struct.end, kind, struct.origin, struct.right_origin, struct.parent, struct.parent_key


DAMAGES: list[Damage] = [
    an_id_is_lost,
    a_struct_is_left_out,
    a_run_is_longer,
    another_origin,
    an_origin_one_before,
    no_origin,
    another_right_origin,
    another_parent,
    a_parent_by_id,
    another_key,
    live_content_is_dropped,
    an_item_becomes_gc,
    other_content,
    one_letter_is_another,
    deleted_content_is_invented,
    a_gap_is_filled,
    a_gc_run_comes_back,
    neighbours_swap_their_content,
    neighbours_join_that_were_not_typed_in_one_go,
]


def damaged(folded: StructUpdate, damage: Damage) -> Iterator[bytes]:
    """The update with this damage at each place where it can be done."""
    for client, block in folded.structs.items():
        for at in range(len(block)):
            worse = damage(client, block, at)
            if worse is not None:
                yield write_update({**folded.structs, client: worse}, folded.deletes)


def a_merge_of(seed: int) -> bytes:
    """A history with a tenth of its updates missing, so that there are gaps and what waits behind them."""
    choose = random.Random(seed)
    updates = shared_judge().history(seed).updates
    return merge_exactly([update for update in updates if choose.random() < 0.9] or updates)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=SEEDS)
def test_a_damaged_fold_is_refused(damage: Damage, seed: int) -> None:
    merged = a_merge_of(seed)
    folded = fold(merged)
    for update in damaged(read_update(folded), damage):
        assert update != folded
        try:
            check_fold(merged, update)
        except FoldMismatch:
            continue
        raise AssertionError(f"seed {seed}: {damage.__name__} went unnoticed: {update.hex()}")


def fewer_deletes(deletes: dict[int, Ranges]) -> Iterator[dict[int, Ranges]]:
    """The delete set with one range gone, shorter, or another client's."""
    for client, ranges in deletes.items():
        others = {other: found for other, found in deletes.items() if other != client}
        yield {**others, STRANGER: ranges}
        for at, (start, end) in enumerate(ranges):
            before, after = ranges[:at], ranges[at + 1 :]
            yield {**others, client: before + after} if before + after else others
            yield {**others, client: [*before, (start + 1, end), *after]} if start + 1 < end else others


def more_deletes(deletes: dict[int, Ranges]) -> Iterator[dict[int, Ranges]]:
    """The delete set with one range longer, and with one more."""
    yield {**deletes, STRANGER: [(0, 1)]}
    for client, ranges in deletes.items():
        for at, (start, end) in enumerate(ranges):
            yield {**deletes, client: join_ranges([*ranges[:at], (start, end + 1), *ranges[at + 1 :]])}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=SEEDS)
def test_a_fold_with_another_delete_set_is_refused(seed: int) -> None:
    merged = a_merge_of(seed)
    folded = read_update(fold(merged))
    # What a fold adds may be missing, so that only what the merge had is taken away.
    for deletes in (*fewer_deletes(read_update(merged).deletes), *more_deletes(folded.deletes)):
        with pytest.raises(FoldMismatch, match="delete sets"):
            check_fold(merged, write_update(folded.structs, deletes))


def test_every_damage_is_one_that_random_folds_can_have() -> None:
    folds = [read_update(fold(a_merge_of(seed))) for seed in range(40)]
    assert [damage.__name__ for damage in DAMAGES if not any(any(damaged(folded, damage)) for folded in folds)] == []
