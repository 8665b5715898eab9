"""Who is it, and what may they do: one answer for every adapter.

Pure decisions over what a request carries. No sockets, no storage, no framework types.
"""
