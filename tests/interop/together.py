"""What two editors of one document do together, whatever their providers. What one provider alone does is not here."""

from __future__ import annotations

from tests.interop.editors import Editor

ANN = {"user": {"name": "Ann", "color": "#30bced"}}
BEN = {"user": {"name": "Bén 😀"}}


async def meet_and_type(ann: Editor, ben: Editor) -> None:
    """Each sees the other there, and what the other types. Both then hold "one two"."""
    await ann.ask("setPresence", presence=ANN)
    await ben.ask("setPresence", presence=BEN)
    await ann.shows_others(BEN)
    await ben.shows_others(ANN)
    await ann.type("one ")
    await ben.shows("one ")
    await ben.type("two")
    await ann.shows("one two")


async def part_and_merge(ann: Editor, ben: Editor) -> None:
    """Ann leaves after `meet_and_type`, both type apart, and she comes back. Both then hold all of it."""
    await ann.disconnect()
    await ben.shows_others()
    await ann.type("zero ", at=0)
    await ben.type(" three")
    await ann.connect()
    for editor in (ann, ben):
        await editor.shows("zero one two three")
