"""The lib0 primitives of the Yjs v1 encodings, read strictly and written canonically.

A varUint is LEB128 (7 bits a byte, low group first) of at most 2**53 - 1; a buffer or a string is its length as a
varUint and then its bytes; strings are UTF-8. Truncated, overlong and overflowing input is `Malformed`; which
error the peer sees for it is the caller's choice. What the primitives are put together to lives elsewhere.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

import orjson

UINT_MAX: Final = 2**53 - 1
"""The greatest integer that a JavaScript number holds exactly, and the greatest varUint or varInt accepted."""

NESTING_MAX: Final = 64
"""How deep Any and JSON values may nest: every reader of them, native ones included, recurses."""

JSON_VALUES_MAX: Final = 250_000
"""How many values one JSON text may hold: checking it builds them all, some 100 bytes each."""

_SINGLE_BYTES: Final = tuple(bytes((n,)) for n in range(0x80))


class Malformed(ValueError):
    """Bytes that are not what the encoding says they are. The message names the offset, never the content."""


class Reader:
    """Reads primitives from `data[at:end]`, each exactly once, and raises `Malformed` rather than run over `end`.

    After an error `at` is unspecified. `data` is never copied as a whole; `buf` copies what it returns.
    """

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    @property
    def done(self) -> bool:
        """Whether every byte has been read."""
        return self.at >= self.end

    def byte(self) -> int:
        """The next byte, 0 to 255."""
        at = self.at
        if at >= self.end:
            raise Malformed(f"truncated at offset {at}")
        self.at = at + 1
        return self.data[at]

    def uint(self) -> int:
        """A varUint, 0 to 2**53 - 1, in its shortest form."""
        at = self.at
        end = self.end
        if at >= end:
            raise Malformed(f"truncated at offset {at}")
        data = self.data
        byte = data[at]
        at += 1
        if byte < 0x80:
            self.at = at
            return byte
        value = byte & 0x7F
        shift = 7
        while True:
            if at >= end:
                raise Malformed(f"truncated at offset {at}")
            byte = data[at]
            at += 1
            if byte < 0x80:
                break
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 49:
                raise Malformed(f"integer too large at offset {at}")
        if byte == 0:
            raise Malformed(f"overlong integer at offset {at}")
        value |= byte << shift
        if value > UINT_MAX:
            raise Malformed(f"integer too large at offset {at}")
        self.at = at
        return value

    def int_(self) -> int:
        """A varInt, -(2**53 - 1) to 2**53 - 1, in its shortest form; lib0's negative zero (0x40) reads as 0."""
        first = self.byte()
        value = first & 0x3F
        if first >= 0x80:
            shift = 6
            while True:
                byte = self.byte()
                value |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
                if shift > 48:
                    raise Malformed(f"integer too large at offset {self.at}")
            if byte == 0:
                raise Malformed(f"overlong integer at offset {self.at}")
            if value > UINT_MAX:
                raise Malformed(f"integer too large at offset {self.at}")
        return -value if first & 0x40 else value

    def skip(self, length: int) -> int:
        """Steps over `length` bytes and returns where they begin."""
        start = self.at
        if length > self.end - start:
            raise Malformed(f"a length past the end at offset {start}")
        self.at = start + length
        return start

    def buf(self) -> bytes:
        """A length-prefixed run of raw bytes."""
        length = self.uint()
        start = self.skip(length)
        return self.data[start : start + length]

    def string(self) -> str:
        """A length-prefixed string of valid UTF-8: encoded surrogates are refused, as Yjs refuses them."""
        raw = self.buf()
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"invalid UTF-8 before offset {self.at}") from error

    def json(self, nesting_max: int = NESTING_MAX) -> str:
        """A string that holds one JSON value nested at most `nesting_max` deep; returned as it was written."""
        text = self.string()
        check_json(text, nesting_max)
        return text

    def skip_any(self, nesting_max: int = NESTING_MAX) -> None:
        """Steps over one lib0 `any` value, checking all of it, without recursion.

        A container nested in `nesting_max` others is refused; numbers may have any bit pattern.
        """
        # What is still to come in each open container: a count of values, negative where each has a key.
        open_containers: list[int] = []
        while True:
            kind = self.byte()
            if kind == 119:
                self.string()
            elif kind == 125:
                self.int_()
            elif kind in _ANY_FIXED_BYTES:
                self.skip(_ANY_FIXED_BYTES[kind])
            elif kind == 116:
                self.skip(self.uint())
            elif kind in (117, 118):
                count = self.uint()
                if len(open_containers) >= nesting_max:
                    raise Malformed(f"a value nested deeper than {nesting_max} at offset {self.at}")
                open_containers.append(count if kind == 117 else -count)
            else:
                raise Malformed(f"unknown kind of value {kind} at offset {self.at}")
            while open_containers and open_containers[-1] == 0:
                open_containers.pop()
            if not open_containers:
                return
            if open_containers[-1] > 0:
                open_containers[-1] -= 1
            else:
                open_containers[-1] += 1
                self.string()


_ANY_FIXED_BYTES: Final = {127: 0, 126: 0, 124: 4, 123: 8, 122: 8, 121: 0, 120: 0}
"""undefined, null, float32, float64, bigint64, false, true: the payload bytes of each kind of fixed size."""


def check_json(text: str, nesting_max: int = NESTING_MAX) -> None:
    """Returns if `text` is one JSON value that every Yjs reads, nested at most `nesting_max` deep.

    Raises `Malformed` otherwise: for lone surrogates in escapes and numbers beyond a double too, which yrs refuses.
    """
    if text.count("[") + text.count("{") > nesting_max and json_nesting(text) > nesting_max:
        raise Malformed(f"JSON nested deeper than {nesting_max}")
    if text.count(",") >= JSON_VALUES_MAX:
        raise Malformed(f"JSON of more than {JSON_VALUES_MAX} values")
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Malformed("invalid JSON") from error


def json_nesting(text: str) -> int:
    """How deep the arrays and objects of a JSON text nest. Linear, iterative; for other text, any number."""
    brackets = _JSON_STRING.sub("", text).encode(errors="replace").translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(array("b", brackets)), default=0)


# The closing quote is optional, so that every attempt matches: a search that fails at each quote is quadratic.
_JSON_STRING: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[{]}"))


def utf16_length(text: str) -> int:
    """How many UTF-16 code units, and therefore Yjs clock ticks, a string has."""
    if text.isascii():
        return len(text)
    return len(text.encode("utf-16-le")) // 2


def encode_uint(value: int) -> bytes:
    """The varUint of `value`; `ValueError` outside 0 to 2**53 - 1."""
    if 0 <= value < 0x80:
        return _SINGLE_BYTES[value]
    if not 0 <= value <= UINT_MAX:
        raise ValueError(f"{value} is no varUint")
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(0x80 | (value & 0x7F))
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_buf(payload: bytes) -> bytes:
    """`payload` behind its length."""
    return encode_uint(len(payload)) + payload


def encode_string(text: str) -> bytes:
    """The UTF-8 of `text` behind its length in bytes; `UnicodeEncodeError` for a lone surrogate."""
    return encode_buf(text.encode())


def frame(update: bytes) -> bytes:
    """One update as it stands in a log row or a Durable Streams body: a lib0 buffer."""
    return encode_buf(update)


def join_frames(updates: Iterable[bytes]) -> bytes:
    """The updates as frames, one behind the other; `frames` gives them back."""
    return b"".join([part for update in updates for part in (encode_uint(len(update)), update)])


def frames(data: bytes) -> Iterator[bytes]:
    """The updates in a run of frames, in order. Raises `Malformed` at the first that is not whole."""
    reader = Reader(data)
    while not reader.done:
        yield reader.buf()
