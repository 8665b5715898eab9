from __future__ import annotations

import gzip
import pickle
import re
from pathlib import Path

import pytest

from tests.unit.yjs.corpus import ACCEPTED, REFUSED, Accepted, Refused, nested_any
from ydoc_store.errors import InvalidUpdate, TooLarge
from ydoc_store.yjs.lib0 import encode_uint, frames
from ydoc_store.yjs.ranges import Knowledge
from ydoc_store.yjs.walked import PackedRanges
from ydoc_store.yjs.walker import (
    DEFAULT_LIMITS,
    RESERVED_CLIENT_ID_MIN,
    UpdateLimits,
    Walked,
    marker_update,
    walk,
    walk_structs,
)

TRACES = Path(__file__).parents[4] / "shared" / "traces"


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_hostile_update_is_refused_with_its_reason(case: Refused) -> None:
    with pytest.raises(InvalidUpdate, match=re.escape(case.reason)):
        walk(case.update)
    with pytest.raises(InvalidUpdate):
        walk_structs(case.update)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_an_honest_update_is_told_by_its_ranges(case: Accepted) -> None:
    walked = walk(case.update)
    assert (walked.structs, walked.deletes) == (case.structs, case.deletes)
    assert walked.is_empty == (not case.structs and not case.deletes)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_an_update_that_is_cut_short_anywhere_is_refused(case: Accepted) -> None:
    for length in range(min(len(case.update), 300)):
        with pytest.raises(InvalidUpdate):
            walk(case.update[:length])
    with pytest.raises(InvalidUpdate):
        walk(case.update + b"\x00")


def test_counts_are_those_of_the_encoding() -> None:
    walked = walk(bytes.fromhex("01 03 01 00 00 02 0a 03 00 01  02 01 02 00 01 01 01 09 01 00 01"))
    assert (walked.struct_count, walked.client_count, walked.delete_count) == (2, 2, 3)
    walked = walk(bytes.fromhex("00 02 01 02 00 01 01 01 09 01 00 01"))
    assert (walked.struct_count, walked.client_count, walked.delete_count) == (0, 2, 3)


def test_an_update_over_its_size_is_too_large() -> None:
    update = bytes.fromhex("01 01 01 05 84 0104 01 61 00")
    assert walk(update, UpdateLimits(update_bytes_max=len(update)))
    with pytest.raises(TooLarge, match="at most 9"):
        walk(update, UpdateLimits(update_bytes_max=len(update) - 1))


def test_a_large_update_is_bounded_by_its_bytes_alone_and_its_ranges_are_packed() -> None:
    """What is repeated must get in: a document with more deletes than any count would never be opened again."""
    count = 1_100_000
    ranges = b"".join(encode_uint(4 * number) + b"\x01" for number in range(count))
    walked = walk(b"\x00\x02\x05" + encode_uint(count) + ranges + b"\x06\x01\x07\x02")
    assert isinstance(walked.deletes, PackedRanges)
    assert walked.delete_count == len(walked.deletes) == count + 1
    assert next(iter(walked.deletes)) == (5, 0, 1)
    assert (5, 4 * (count - 1), 4 * (count - 1) + 1) in walked.deletes
    assert list(walked.deletes)[-1] == (6, 7, 9)
    assert sum(len(part.deletes) for part in walked.parts(20_000)) == count + 1
    knowledge = Knowledge()
    knowledge.add(walked)
    assert knowledge.covers(walked)
    assert not knowledge.news(walked).deletes


def test_runs_without_content_are_told_apart() -> None:
    walked = walk(bytes.fromhex("01 06 01 00 00 02 00 03 84 0100 01 61 81 0105 04 0a 02 00 01 00"))
    assert walked.structs == [(1, 0, 10), (1, 12, 13)]
    assert walked.blanks == [(1, 0, 5), (1, 6, 10), (1, 12, 13)]
    assert walk(ACCEPTED[2].update).blanks == ()


def test_packed_ranges_say_what_a_list_says() -> None:
    listed = [(1, 0, 2), (1, 5, 6), (2**53 - 1, 0, 2**31 - 1), (1, 9, 10)]
    packed = PackedRanges()
    for found in listed:
        packed.append(found)
    assert list(packed) == listed
    assert list(pickle.loads(pickle.dumps(packed))) == listed
    assert (1, 5, 7) not in packed


def test_what_is_over_a_count_is_walked_and_named() -> None:
    walked = walk(bytes.fromhex("02 02 02 00 00 01 00 01 01 01 00 00 01 01 01 03 05 01 07 01 09 01"))
    assert walked.over(DEFAULT_LIMITS) is None
    assert walked.over(UpdateLimits(structs_max=2)) == "3 structs, at most 2"
    assert walked.over(UpdateLimits(clients_max=1)) == "2 clients, at most 1"
    assert walked.over(UpdateLimits(delete_ranges_max=2)) == "3 delete ranges, at most 2"


def test_nesting_limits_are_those_of_the_caller() -> None:
    assert walk(nested_any(10), UpdateLimits(nesting_max=10))
    with pytest.raises(InvalidUpdate, match="nested deeper than 9"):
        walk(nested_any(10), UpdateLimits(nesting_max=9))


def test_types_that_nest_along_origins_are_counted() -> None:
    """Each type's first child is a character and its second, known only by its origin, the next type."""
    update = bytes.fromhex("01 07 01 00  07 01 0174 00  04 00 0100 01 61  87 0101 00  04 00 0102 01 61  87 0103 00")
    update += bytes.fromhex("04 00 0104 01 61  87 0105 00  00")
    assert walk(update, UpdateLimits(types_nesting_max=3))
    with pytest.raises(InvalidUpdate, match="types nested deeper than 2"):
        walk(update, UpdateLimits(types_nesting_max=2))


def test_many_types_beside_each_other_do_not_nest() -> None:
    update = b"\x01\xac\x02\x01\x00" + bytes.fromhex("07 01 0174 00") + bytes.fromhex("87 0100 00") * 299 + b"\x00"
    assert walk(update).struct_count == 300


def test_types_that_hang_on_each_other_in_a_circle_end_the_walk() -> None:
    update = bytes.fromhex("02 01 02 00 07 00 0100 00  01 01 00 07 00 0200 00  00")
    with pytest.raises(InvalidUpdate, match="types nested deeper than 1"):
        walk(update, UpdateLimits(types_nesting_max=1))


def test_a_marker_is_one_reserved_struct_and_nothing_else() -> None:
    marker = RESERVED_CLIENT_ID_MIN + 7
    walked = walk(marker_update(marker))
    assert walked == Walked([(marker, 0, 1)], [], 1, 1, 0, [(marker, 0, 1)])
    assert walked.reserved_clients() == {marker}
    for outside in (RESERVED_CLIENT_ID_MIN - 1, 2**53):
        with pytest.raises(ValueError, match="no reserved client id"):
            marker_update(outside)


def test_a_delete_under_a_reserved_id_is_seen() -> None:
    assert walk(b"\x00\x01\xff\xff\xff\xff\xff\xff\xff\x0f\x01\x00\x01").reserved_clients() == {2**53 - 1}
    assert walk(b"\x00\x01\x05\x01\x00\x01").reserved_clients() == set()


@pytest.mark.skipif(not TRACES.is_dir(), reason="absent: ../shared/traces, beside the repository")
@pytest.mark.parametrize("name", ["friendsforever", "json-crdt-patch", "sveltecomponent", "automerge-paper"])
def test_every_keystroke_of_a_real_history_is_walked(name: str) -> None:
    held: dict[int, int] = {}
    for update in frames(gzip.decompress((TRACES / f"{name}.yupdates.gz").read_bytes())):
        walked = walk(update)
        assert walked == walk_structs(update)
        for client, start, end in walked.structs:
            assert start == held.get(client, 0)
            held[client] = end
    assert sum(held.values()) > 10_000
