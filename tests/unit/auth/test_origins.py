from __future__ import annotations

import pytest

from ydoc_store.auth.origins import Origins
from ydoc_store.errors import Forbidden, SettingInvalid

NAMED = Origins.parse("https://app.example.com, http://intra:8080/")


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "https://app.example.com",
        "HTTPS://APP.example.com",
        "http://intra:8080",
        "https://docs.example.com",
        "http://localhost:3000",
        "http://127.0.0.1",
    ],
)
def test_named_pages_the_same_host_loopback_and_programs_may_connect(origin: str | None) -> None:
    NAMED.judge(origin, "docs.example.com")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.com",
        "http://app.example.com",
        "https://app.example.com.evil.com",
        "https://app.example.com:444",
        "https://sub.app.example.com",
        "https://docs.example.com.evil.com",
        "https://user@docs.example.com",
        "https://evil.com/docs.example.com",
        "docs.example.com",
    ],
)
def test_any_other_page_is_refused_and_the_setting_named(origin: str) -> None:
    with pytest.raises(Forbidden, match="YDOC_ORIGINS"):
        NAMED.judge(origin, "docs.example.com")


@pytest.mark.parametrize("text", ["*", "app.example.com", "https://a b", "https://*.example.com/x"])
def test_what_is_no_origin_is_told_at_start(text: str) -> None:
    with pytest.raises(SettingInvalid, match="YDOC_ORIGINS"):
        Origins.parse(text)
