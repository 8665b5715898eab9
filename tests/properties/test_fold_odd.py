"""Folds of structs that no honest editor sends: any place, any content, GC runs and deletes anywhere."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compactor.fold import fold_or_doubt
from tests.interop.yjs_judge import shared_judge
from ydoc_store.errors import InvalidUpdate
from ydoc_store.yjs.document import to_json
from ydoc_store.yjs.structs import Id, Ranges, Struct, write_update
from ydoc_store.yjs.walker import ANY, DELETED, GC, STRING, TYPE, walk

CLIENTS = (7, 9)
CONTENTS = {
    STRING: ((1, b"a"), (2, b"bc"), (3, b"def")),
    ANY: ((1, b"\x7e"), (2, b"\x7d\x01\x7d\x02")),
    TYPE: ((1, b"\x00"), (1, b"\x01"), (1, b"\x02")),
    DELETED: ((1, b""), (2, b"")),
    GC: ((1, b""), (2, b"")),
}


@st.composite
def odd_updates(draw: st.DrawFn) -> bytes:
    """A few structs of two clients, most of which a document can apply, and some deletes."""
    structs: dict[int, list[Struct]] = {client: [] for client in CLIENTS}
    known: list[Id] = []
    parents: list[Id] = []
    for _ in range(draw(st.integers(2, 9))):
        client = draw(st.sampled_from(CLIENTS))
        clock = structs[client][-1].end if structs[client] else 0
        kind = draw(st.sampled_from((STRING, STRING, STRING, ANY, TYPE, TYPE, DELETED, GC)))
        length, payload = draw(st.sampled_from(CONTENTS[kind]))
        fields: dict[str, object] = {}
        if kind != GC:
            fields = draw(places(known, parents))
        structs[client].append(Struct(clock, clock + length, kind, payload=payload, **fields))  # type: ignore[arg-type]
        known += ((client, unit) for unit in range(clock, clock + length))
        if kind in (TYPE, DELETED, GC):
            parents.append((client, clock))
    deletes: dict[int, Ranges] = {}
    for client, clock in draw(st.lists(st.sampled_from(known), unique=True, max_size=6)):
        deletes.setdefault(client, []).append((clock, clock + 1))
    return write_update({client: block for client, block in structs.items() if block}, deletes)


@st.composite
def places(draw: st.DrawFn, known: list[Id], parents: list[Id]) -> dict[str, object]:
    ids = st.sampled_from(known) if known else st.nothing()
    how = draw(st.sampled_from(("root", "entry", "origin", "right", "parent", "child entry")))
    if not known or how == "root":
        return {"parent": "t"}
    if how == "entry":
        return {"parent": "m", "parent_key": "k"}
    if how in ("parent", "child entry"):
        parent = draw(st.sampled_from(parents)) if parents else "t"
        return {"parent": parent, "parent_key": None if how == "parent" else "k"}
    return {"origin" if how == "origin" else "right_origin": draw(ids)}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(odd_updates())
def test_what_no_editor_sends_is_folded_unnoticed_too(update: bytes) -> None:
    """I7: in Yjs and in pycrdt. What Yjs itself cannot apply it does not judge, and a doubt keeps the merge."""
    folded, doubt = fold_or_doubt(update, walk(update).struct_count, keep_deleted=False)
    if doubt is not None:
        assert folded == update
        return
    try:
        shared_judge().describe([update])
    except RuntimeError:
        return
    assert shared_judge().difference([update], [folded]) is None
    try:
        expected = to_json(update)
    except InvalidUpdate:
        return
    assert to_json(folded) == expected
