"""XML from outside into XML types: elements, attributes and text, and nothing else.

What would be lost is refused: document types and entities, comments, processing instructions. White space is text.
The parser is expat, which does not recurse; nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from xml.parsers import expat

from ydoc_store.errors import InvalidRequest
from ydoc_store.yjs.tree import LEVELS_MAX, XML_ELEMENT, XML_TEXT, Branch, Item
from ydoc_store.yjs.writing import Writer

_AROUND: Final = "<all>", "</all>"
_DECLARATION: Final = re.compile(r"\A\ufeff?<\?xml\s[^>]*\?>")


class _Reading:
    """One pass over one text; `last` is what stands last in each open element."""

    def __init__(self, writer: Writer, parent: Branch, left: Item | None) -> None:
        self._writer = writer
        self._open: list[tuple[Branch, Item | None]] = [(parent, left)]
        self._text: list[str] = []
        self._is_around = True

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        if self._is_around:
            self._is_around = False
            return
        self.finish_text()
        parent, left = self._open[-1]
        if parent.depth >= LEVELS_MAX:
            raise InvalidRequest(f"its elements nest more than {LEVELS_MAX} deep")
        item = self._writer.type(parent, left, XML_ELEMENT, name)
        self._open[-1] = parent, item
        if item.branch is None:
            raise ValueError("an element is a type")
        for key, value in attributes.items():
            self._writer.set_value(item.branch, key, value)
        self._open.append((item.branch, None))

    def end(self, _name: str) -> None:
        self.finish_text()
        if len(self._open) > 1:
            self._open.pop()

    def text(self, text: str) -> None:
        self._text.append(text)

    def finish_text(self) -> None:
        if self._text:
            parent, left = self._open[-1]
            item = self._writer.type(parent, left, XML_TEXT)
            self._open[-1] = parent, item
            if item.branch is not None:
                self._writer.text(item.branch, None, "".join(self._text))
            self._text.clear()

    @property
    def last(self) -> Item | None:
        return self._open[0][1]


def insert_xml(writer: Writer, parent: Branch, left: Item | None, text: str) -> Item | None:
    """A run of elements and text into XML, behind `left`. Returns the last item.

    Raises InvalidRequest with line and column for what is no XML, or would not be kept.
    """
    reading = _Reading(writer, parent, left)
    parser = _parser()
    parser.StartElementHandler = reading.begin
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.text
    _parse(parser, text)
    return reading.last


def check_xml(text: str) -> None:
    """Raises InvalidRequest where `text` is no run of elements and text."""
    _parse(_parser(), text)


def _parser() -> expat.XMLParserType:
    parser = expat.ParserCreate("UTF-8")
    parser.StartDoctypeDeclHandler = _refusing("a document type")
    parser.CommentHandler = _refusing("a comment")
    parser.ProcessingInstructionHandler = _refusing("a processing instruction")
    return parser


def _refusing(what: str) -> Callable[..., None]:
    def refuse(*_found: object) -> None:
        raise InvalidRequest(f"the XML holds {what}, which has no place in a document")

    return refuse


def _parse(parser: expat.XMLParserType, text: str) -> None:
    before, after = _AROUND
    try:
        parser.Parse(before)
        parser.Parse(_DECLARATION.sub("", text, count=1))
        parser.Parse(after, True)  # noqa: FBT003 - takes no keyword
    except expat.ExpatError as error:
        column = error.offset - (len(before) if error.lineno == 1 else 0)
        raise InvalidRequest(
            f"not XML: {expat.ErrorString(error.code)} at line {error.lineno}, column {max(0, column)}"
        ) from error
