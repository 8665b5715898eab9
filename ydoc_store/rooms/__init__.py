"""The life of a document in this process: rooms, their members, presence, and the sessions of each dialect.

Rooms know no transport: a member is an object with an outbox that the relay provides. What decides is pure and says
so, without I/O and without a clock of its own, so that a simulation can drive it; the waiting is done by `registry`
and by what it hands work to.
"""
