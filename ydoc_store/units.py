"""The types of settings: what is accepted, and the unit that a listing reports. Which settings there are is not known
here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Unit(NamedTuple):
    """Marks a setting's type with the unit that `describe` reports."""

    name: str


def parse_size(value: object) -> object:
    """Bytes from `4096`, `256KiB`, `16 MiB` or `2GiB`. Anything that is no string is left to the type.

    Raises ValueError, which pydantic turns into an error of that setting.
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+)\s*(B|KiB|MiB|GiB)?\s*", value, re.IGNORECASE | re.ASCII)
    if found is None:
        raise ValueError("not a size: write bytes, or a whole number with KiB, MiB or GiB")
    factor = {"b": 1, "kib": KIB, "mib": MIB, "gib": GIB}[(found[2] or "B").lower()]
    return int(found[1]) * factor


Bytes = Annotated[int, BeforeValidator(parse_size), Field(ge=1), Unit("bytes")]
InlineBytes = Annotated[int, BeforeValidator(parse_size), Field(ge=0, le=5_900), Unit("bytes")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), Unit("s")]
SecondsOrNone = Annotated[float, Field(ge=0, allow_inf_nan=False), Unit("s")]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False), Unit("1/s")]
ByteRate = Annotated[int, BeforeValidator(parse_size), Field(ge=1), Unit("bytes/s")]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False), Unit("ms")]
Days = Annotated[int, Field(ge=0), Unit("days")]
Count = Annotated[int, Field(ge=1), Unit("count")]
Folder = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
