"""What becomes of a document that cannot be opened."""

from __future__ import annotations

from typing import Any

import pytest

from tests.waiting import TIMEOUT_S
from ydoc_store.client import ClientError, Unavailable, connect


async def opening(url: str, *, tells: str = "", timeout_s: float = 0.5, **how: Any) -> ClientError:
    """What opening `notes` there comes to.

    Where that is Unavailable, at the first deadline by which it `tells` so: a machine that stood still has come to
    nothing of the kind by an earlier one.
    """
    while True:
        with pytest.raises(ClientError) as raised:
            async with connect(url, "notes", timeout_s=timeout_s, **how):
                pytest.fail("opened")
        if not isinstance(raised.value, Unavailable) or tells in str(raised.value) or timeout_s >= TIMEOUT_S:
            return raised.value
        timeout_s *= 4
