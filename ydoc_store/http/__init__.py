"""The ASGI application beside the sockets, on the same port: documents over HTTP, health, metrics.

It asks what the composition hands it. Editors' traffic does not pass through here; upgrades to WebSocket leave before
the application sees them. `create_app` is the whole service as one application, for a project that mounts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ydoc_store.mount import Mounted
    from ydoc_store.settings import Settings


def create_app(settings: Settings | None = None, *, with_compactor: bool = False) -> Mounted:
    """The whole service as one ASGI application (http, websocket, lifespan), to be mounted under any path.

    Without `settings` those of the environment. It needs `YDOC_DATABASE_URL`, migrated. It opens the database where
    its server or its host runs its lifespan, in `async with app.running()`, or else with the first request. The
    compactor runs beside it (`ydoc-compactor run`), or inside it, as in `serve`, `with_compactor`. Raises
    SettingInvalid.
    """
    # Here because whoever imports a part of this package does not mean all of the service.
    from ydoc_store.mount import Mounted

    return Mounted(settings, with_compactor=with_compactor)
