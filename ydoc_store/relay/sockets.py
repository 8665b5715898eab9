"""What the kernel is told about a socket: send at once, buffer little, and give up on a peer that is gone.

Options that a platform lacks are left out; nothing but speed and patience depends on them. Who is slow in taking
what is sent is judged by the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

# What the kernel may hold unsent: enough to fill any link, little enough that the outbox tells who is slow. Without
# it the send buffer grows to megabytes, a slow link takes minutes to free a third of one, and looks dead meanwhile.
NOTSENT_BYTES = 128 * 1024


def set_options(transport: asyncio.Transport, *, dead_after_s: float) -> None:
    """`dead_after_s` is how long sent bytes may stay unacknowledged before the kernel cuts the connection.

    The keepalives see to it that something is always on its way, so that no peer can vanish unnoticed.
    """
    carrier = transport.get_extra_info("socket")
    if carrier is None or carrier.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for name, value in (
        ("TCP_NODELAY", 1),
        ("TCP_NOTSENT_LOWAT", NOTSENT_BYTES),
        ("TCP_USER_TIMEOUT", int(dead_after_s * 1000)),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                carrier.setsockopt(socket.IPPROTO_TCP, option, value)
