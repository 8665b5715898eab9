"""ElectricSQL's stock provider for Yjs on a running service, by long-poll and by events."""

from __future__ import annotations

import pytest

from tests.interop.editors import Editors
from tests.interop.together import meet_and_type, part_and_merge
from tests.service import Service


@pytest.fixture(params=[False, True], ids=["long-poll", "events"])
def sse(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def base(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}"


async def test_two_editors_meet_type_part_and_merge(service: Service, editors: Editors, sse: bool) -> None:
    ann, ben = [await editors.open_electric(base(service), "notes", sse=sse) for _ in range(2)]
    for editor in (ann, ben):
        await editor.synced()
    await meet_and_type(ann, ben)
    await part_and_merge(ann, ben)
