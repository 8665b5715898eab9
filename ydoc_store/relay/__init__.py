"""The socket transport: WebSocket connections carried into rooms. The only importer of `websockets`.

No Yjs knowledge lives here: frames go to a session as bytes, and what a session sends comes back as bytes.
"""
