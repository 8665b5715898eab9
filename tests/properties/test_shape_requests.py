"""Whatever query comes, it is a shape's request or its sender is told what is wrong with it."""

from __future__ import annotations

import contextlib
from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st

from ydoc_store.errors import ClientFault
from ydoc_store.http.shape_request import Start, parse_shape_request

NAMES = ["table", "where", "params[1]", "params[2]", "offset", "handle", "live", "live_sse", "cursor", "log", "x"]
VALUES = ["updates", "awareness", "document = $1", "document = 'a''b'", "notes", "-1", "now", "7_0", "true", "full", ""]
GIVEN = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=30))


@given(GIVEN)
def test_what_holds_together_is_a_request_and_everything_else_is_refused(given: dict[str, str]) -> None:
    with contextlib.suppress(ClientFault):
        asked = parse_shape_request(urlencode(given, errors="surrogatepass"))
        assert asked.table == given["table"]
        assert asked.document in given["where"].replace("''", "'") or asked.document == given["params[1]"]
        assert asked.handle is not None or isinstance(asked.offset, Start)
        assert asked.is_live or not asked.wants_events


@given(st.text(max_size=200))
def test_text_of_any_kind_is_no_error_of_ours(query: str) -> None:
    with contextlib.suppress(ClientFault):
        parse_shape_request(query)
