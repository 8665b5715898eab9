"""What the kernel is told about a socket: send at once, buffer little, and give up on a peer that is gone; and what
the event loop is, which reads little of it at once.

Options that a platform lacks are left out; nothing but speed and patience depends on them. Who is slow in taking
what is sent is judged by the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

# What the kernel may hold unsent: enough to fill any link, little enough that the outbox tells who is slow. Without
# it the send buffer grows to megabytes, a slow link takes minutes to free a third of one, and looks dead meanwhile.
NOTSENT_BYTES = 128 * 1024
# What is read of a socket before the others have their turn. asyncio's own 256 KiB are 26,000 of the smallest messages,
# which take a quarter of a second, and whoever floods has many sockets: a limit of messages acts behind a read.
READ_BYTES = 32 * 1024


# From Linux's `struct tcp_info`: packets sent and not acknowledged, and ms since anything was acknowledged.
_UNACKNOWLEDGED = struct.Struct("@24xI28xI")


def set_options(transport: asyncio.Transport) -> None:
    """Send at once, buffer little, and read little at once."""
    if hasattr(transport, "max_size"):
        # asyncio's name for it, on every transport of its own loop.
        transport.max_size = READ_BYTES
    carrier = _tcp_socket(transport)
    if carrier is None:
        return
    for name, value in (("TCP_NODELAY", 1), ("TCP_NOTSENT_LOWAT", NOTSENT_BYTES)):
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                carrier.setsockopt(socket.IPPROTO_TCP, option, value)


def is_gone(transport: asyncio.Transport, *, dead_after_s: float) -> bool:
    """Whether something is on its way to this peer, and nothing was acknowledged for so long.

    The keepalives see to it that something always is. TCP_USER_TIMEOUT is no substitute: it counts the time in which
    a reader's window is smaller than the next packet, and cuts a slow reader to whom bytes flow all along. False
    where the system does not tell; it gives up by itself then, some 15 minutes later.
    """
    carrier = _tcp_socket(transport)
    if carrier is None or sys.platform != "linux":
        return False
    try:
        told = carrier.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKNOWLEDGED.size)
        packets, silent_ms = _UNACKNOWLEDGED.unpack(told)
    except (OSError, struct.error):
        return False
    return bool(packets and silent_ms > dead_after_s * 1000)


def _tcp_socket(transport: asyncio.Transport) -> socket.socket | None:
    carrier: socket.socket | None = transport.get_extra_info("socket")
    return carrier if carrier is not None and carrier.family in (socket.AF_INET, socket.AF_INET6) else None
