"""The open server's guard: as long as nobody has to say who they are, only this machine may ask.

Pure functions over a bind address and over request headers; sockets and HTTP use the same ones. A page on the
internet can make a browser send requests to 127.0.0.1, directly or through a name that it points there: its
Origin, or the Host it used, gives it away. A proxy on this machine would hand the network in; its forwarding
headers give that away. What identities allow does not live here.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from ydoc_store.errors import SettingInvalid

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(.+)", re.ASCII)
_FIX = "say who may with YDOC_JWT_SECRET or YDOC_AUTHORIZE_URL"


class Allowed(NamedTuple):
    """The request came from this machine, as far as it can tell."""


class Refused(NamedTuple):
    """The request may come from elsewhere. The reason names the fix and fits into a WebSocket close reason."""

    reason: str


def check_bind(host: str, *, has_identities: bool) -> None:
    """Nothing, when an open server may listen on `host`; else SettingInvalid naming the settings of identities."""
    if has_identities or is_loopback_name(f"[{host}]" if ":" in host else host):
        return
    raise SettingInvalid(
        f"{host or 'every address'} can be reached from the network, and this server is open: whoever reaches it "
        "reads and writes every document. Listen on 127.0.0.1, or say who may do what: YDOC_JWT_SECRET, "
        "YDOC_JWT_PUBLIC_KEY, YDOC_JWKS_URL, YDOC_AUTHORIZE_URL or YDOC_AUTHORIZE"
    )


def refusal(headers: Iterable[tuple[str, str]]) -> Refused | Allowed:
    """Whether an open server answers a request with these headers, given in any case and order.

    A missing Origin is fine, since only browsers send one; a missing Host is not.
    """
    hosts = 0
    for name, value in headers:
        match name.lower():
            case "host":
                hosts += 1
                if not is_loopback_name(value.strip()):
                    return Refused(f"open server: Host is no loopback name; {_FIX}")
            case "origin":
                found = _ORIGIN.fullmatch(value.strip())
                if found is None or not is_loopback_name(found[1]):
                    return Refused(f"open server: Origin is no loopback name; {_FIX}")
            case "forwarded":
                return Refused(f"open server: it came through a proxy (Forwarded); {_FIX}")
            case forwarded if forwarded.startswith("x-forwarded-"):
                return Refused(f"open server: it came through a proxy (X-Forwarded-*); {_FIX}")
    return Allowed() if hosts else Refused(f"open server: the request names no Host; {_FIX}")


# The same few names come with every request; a stranger's many push each other out.
@functools.lru_cache(maxsize=256)
def is_loopback_name(authority: str) -> bool:
    """Whether `host` or `host:port` can only mean this machine: localhost, *.localhost, 127/8 or [::1]."""
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        return False
    host = found[1].lower().removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        if host.startswith("["):
            return ipaddress.IPv6Address(host[1:-1]) == ipaddress.IPv6Address("::1")
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False
