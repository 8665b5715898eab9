"""The update log in Postgres, and the only room that speaks to asyncpg.

All SQL text of the product lives below, one module a table or a task, each statement a named constant beside the
one function that sends it. What is returned are values; what goes wrong is raised from `ydoc_store.errors`.
Nothing here knows rooms, sockets or dialects.
"""
