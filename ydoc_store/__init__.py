"""ydoc-store: where collaborative editors keep their Yjs documents.

Every update is a sequenced row in Postgres before anyone else sees it. This package is the service; `compactor`,
beside it, merges what has piled up. Only the version lives here: importing the package starts nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"
