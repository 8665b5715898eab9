"""Tokens as an application would sign them, with a secret that tests share."""

from __future__ import annotations

import time
from typing import Any

import jwt

SECRET = "a secret of more than sixty-four bytes, so that any of the hashes takes it"


def token(actor: str | None = "ann", documents: dict[str, str] | None = None, **claims: Any) -> str:
    """By default one that writes every document for an hour."""
    now_s = time.time()
    payload: dict[str, Any] = {
        "exp": now_s + 3_600,
        "iat": now_s,
        "documents": {"*": "write"} if documents is None else documents,
    }
    if actor is not None:
        payload["sub"] = actor
    return jwt.encode(payload | claims, SECRET, algorithm="HS256")
