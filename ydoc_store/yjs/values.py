"""Plain values inside a document: lib0's `any` and the JSON of embeds and formats, read and written as JavaScript does.

Read as values that JSON can hold: binary is `{"base64": …}`, a subdocument `{"subdocument": guid}`, what JSON lacks
(`undefined`, NaN, infinities) None, as `JSON.stringify` shows it in a list. Written from JSON, canonically.
"""

from __future__ import annotations

import base64
import math
import struct as binary
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import orjson

from ydoc_store.yjs.lib0 import UINT_MAX, Reader, encode_string, encode_uint

INT_MAX: Final = 2**31 - 1
"""Integers up to here are written as such, larger ones as floats: what lib0 does."""

UNDEFINED: Final = object()
"""JavaScript's undefined, which an object in JSON leaves out and a list shows as null."""


def read_values(payload: bytes) -> Iterator[Any]:
    """The values of an ANY struct's payload, in order."""
    reader = Reader(payload)
    while not reader.done:
        yield shown(_read(reader))


def read_json(reader: Reader) -> Any:
    """A string that holds JSON, as embeds and formats have it."""
    return orjson.loads(reader.string())


def shown(value: Any) -> Any:
    return None if value is UNDEFINED else value


def _read(reader: Reader) -> Any:
    """Recursive: how deep values nest was judged when they came."""
    kind = reader.byte()
    if kind == 119:
        return reader.string()
    if kind == 125:
        return reader.int_()
    if kind in _CONSTANTS:
        return _CONSTANTS[kind]
    if kind in _NUMBERS:
        code, size = _NUMBERS[kind]
        start = reader.skip(size)
        return _number(binary.unpack(code, reader.data[start : start + size])[0])
    if kind == 116:
        return {"base64": base64.b64encode(reader.buf()).decode()}
    values: list[Any] = []
    if kind == 117:
        for _ in range(reader.uint()):
            values.append(shown(_read(reader)))  # noqa: PERF401 - a comprehension is one more frame a level
        return values
    found: dict[str, Any] = {}
    for _ in range(reader.uint()):
        key = reader.string()
        value = _read(reader)
        if value is not UNDEFINED:
            found[key] = value
    return found


_CONSTANTS: Final = {127: UNDEFINED, 126: None, 121: False, 120: True}
_NUMBERS: Final = {124: (">f", 4), 123: (">d", 8), 122: (">q", 8)}


def _number(value: float | int) -> float | int | None:
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


def encode_any(value: Any) -> bytes:
    """A JSON value as lib0 writes it. ValueError for an integer that JavaScript cannot hold exactly."""
    parts: list[bytes] = []
    _write(value, parts)
    return b"".join(parts)


def _write(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, str):
        parts += (b"\x77", encode_string(value))
    elif value is None:
        parts.append(b"\x7e")
    elif isinstance(value, bool):
        parts.append(b"\x78" if value else b"\x79")
    elif isinstance(value, int | float):
        parts.append(_encoded_number(value))
    elif isinstance(value, list):
        parts += (b"\x75", encode_uint(len(value)))
        for inner in value:
            _write(inner, parts)
    elif isinstance(value, dict):
        parts += (b"\x76", encode_uint(len(value)))
        for key, inner in value.items():
            parts.append(encode_string(key))
            _write(inner, parts)
    else:
        raise ValueError(f"a {type(value).__name__} is no JSON value")


def is_exact(value: int) -> bool:
    """Whether JavaScript's numbers, which are doubles, hold this integer, or print themselves so."""
    if abs(value) <= UINT_MAX:
        return True
    if value.bit_length() > 1_023:
        return False
    double = float(value)
    return int(double) == value or int(Decimal(repr(double))) == value


def _encoded_number(value: float | int) -> bytes:
    if isinstance(value, int) and not is_exact(value):
        raise ValueError(f"the integer {value} is one that JavaScript would round")
    if float(value).is_integer() and abs(value) <= INT_MAX:
        return b"\x7d" + _encoded_int(int(value), is_negative=math.copysign(1, value) < 0)
    try:
        single = binary.pack(">f", value)
        if binary.unpack(">f", single)[0] == value:
            return b"\x7c" + single
    except OverflowError:
        pass
    return b"\x7b" + binary.pack(">d", value)


def _encoded_int(value: int, *, is_negative: bool) -> bytes:
    value = abs(value)
    encoded = bytearray(((0x80 if value > 0x3F else 0) | (0x40 if is_negative else 0) | (value & 0x3F),))
    value >>= 6
    while value:
        encoded.append((0x80 if value > 0x7F else 0) | (value & 0x7F))
        value >>= 7
    return bytes(encoded)


def encode_json(value: Any) -> bytes:
    """A JSON value as embeds and formats hold it: a string of JSON."""
    return encode_string(orjson.dumps(value).decode())
