"""Streams of bytes: who writes to them, who reads them at which pace. They know no transport and no HTTP.

A stream is in memory only as far as somebody uses it; what it holds is read from the log, page by page.
"""
