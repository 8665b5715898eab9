"""What each command of `ydoc-store` does, one module a group; `ydoc_store.cli` puts them together.

Results go to stdout, as a table or with --json as one object a line, messages to stderr. A command returns its
exit code or raises one of our errors, which knows its own.
"""
