"""Logs: structlog to stderr, for people or as JSON, and the standard library's logs through the same renderer.

A line is an event with fields. Document bytes and tokens never stand in one: bytes are replaced by their number
and fields named like a secret are masked here, for whoever forgets. What happens on a connection carries its id.
"""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

import orjson
import structlog
from structlog.typing import EventDict, Processor

_SECRET_PARTS = ("token", "password", "secret", "authorization", "cookie", "database_url")

# These tell every connection, request or job at INFO, which our own events tell with more context.
_CHATTY = ("uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "apscheduler", "asyncio")


def configure(log_format: Literal["console", "json"], log_level: str) -> None:
    """From now on, our logs and the standard library's go to stderr in one form. Calling it again replaces it."""
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        withhold,
    ]
    last: list[Processor]
    if log_format == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    else:
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[log_level.upper()]
    root.setLevel(level)
    for name in _CHATTY:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(level, logging.WARNING))
    # Every retry of every pooled connection with a traceback, every interval that a sweep outlasts: our own lines
    # tell an outage once, and a lag in a gauge.
    for name in ("asyncpg.pool", "apscheduler.scheduler"):
        logging.getLogger(name).setLevel(logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def through_standard_library() -> None:
    """For a process that is not ours: our lines go to the standard library's loggers, whose levels and handlers are
    the host's. Nothing where somebody has configured structlog already."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            withhold,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module; `name` is its `__name__`."""
    bound: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return bound


def new_connection_id() -> str:
    """Short enough to be read aloud, unlike any other that this process has open; it says nothing of a user."""
    return secrets.token_hex(4)


def withhold(_logger: object, _method: str, event: MutableMapping[str, Any]) -> EventDict:
    """A structlog processor: bytes become their number, fields named like a secret become stars."""
    return {name: _harmless(name, value) for name, value in event.items()}


def _harmless(name: str, value: object) -> object:
    lowered = name.lower()
    if value is not None and any(part in lowered for part in _SECRET_PARTS):
        return "********"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return {inner: _harmless(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple) and not name.startswith("_") and name != "exc_info":
        return [_harmless(name, item) for item in value]
    return value


def _json(event: EventDict, **options: Any) -> str:
    return orjson.dumps(event, default=options.get("default", str), option=orjson.OPT_NON_STR_KEYS).decode()
