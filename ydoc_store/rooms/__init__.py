"""The life of a document in this process: rooms, their members, presence, and the sessions of each dialect.

Rooms know no transport: a member is an object with an outbox that the relay provides. Everything here but
`registry` is without I/O and without a clock of its own, so that a simulation can drive it.
"""
