"""A Postgres of our own for the first run: nothing to install, nothing to configure, never on a TCP port."""
