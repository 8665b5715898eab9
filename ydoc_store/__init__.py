"""ydoc-store: where collaborative editors keep their Yjs documents."""

__version__ = "0.1.0"
