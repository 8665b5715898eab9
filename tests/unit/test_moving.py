"""What was stored is compared with its source: anything that is missing or says something else is found."""

from __future__ import annotations

from typing import Any

import pytest
from pycrdt import Doc, Text

from tests.interop.yjs_judge import shared_judge
from ydoc_store.commands.moving import Differs, compare
from ydoc_store.yjs.join import join


def typed(text: str, client: int = 7, erased: int = 0) -> bytes:
    doc = Doc[Any](client_id=client)
    doc["text"] = content = Text(text)
    if erased:
        del content[:erased]
    return doc.get_update()


@pytest.mark.parametrize("seed", range(30))
def test_a_document_equals_itself_however_it_is_cut(seed: int) -> None:
    """Parted emoji among them, which pycrdt shows in two ways."""
    updates = shared_judge().history(seed).updates
    assert compare(join(updates), join(list(reversed(updates)))) == "equal"


def test_what_holds_more_holds_it() -> None:
    assert compare(typed("words"), join([typed("words"), typed("more", client=8)])) == "held"
    assert compare(typed("words"), typed("words", erased=2)) == "held"


@pytest.mark.parametrize(
    "stored",
    [b"\0\0", typed("word"), typed("words", client=8)],
    ids=["nothing", "a letter less", "another's"],
)
def test_a_lost_letter_is_found(stored: bytes) -> None:
    with pytest.raises(Differs, match="lacks"):
        compare(typed("words"), stored)


def test_a_lost_delete_is_found() -> None:
    with pytest.raises(Differs, match="lacks"):
        compare(typed("words", erased=2), typed("words"))


def test_other_content_under_the_same_ids_is_found() -> None:
    """As somebody would have it who made the same document twice, with client ids of their own."""
    with pytest.raises(Differs, match="something else"):
        compare(typed("words"), typed("WORDS"))
    with pytest.raises(Differs, match="something else"):
        compare(typed("words"), join([typed("WORDS"), typed("more", client=8)]))
