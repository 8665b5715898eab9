"""A Postgres of our own for the first run: nothing to install, nothing to configure, never on a TCP port."""

from ydoc_store.embedded.postgres import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
