"""Hints between nodes: "this document has moved on", with the bytes where they fit.

A hint costs latency when it is lost, doubled or late, never data and never order: the log decides. Postgres
carries them by default, so that one database is all that two nodes need.
"""
