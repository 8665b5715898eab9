"""The ASGI application beside the sockets, on the same port: what runs here, health and metrics.

It asks through callables that the composition hands it, so it knows no room and no table. Editors' traffic does
not pass through here; upgrades to WebSocket leave before the application sees them.
"""
