"""`python -m ydoc_store` is the command `ydoc-store`, for a shell whose PATH does not know the scripts."""

from __future__ import annotations

from ydoc_store.cli import main

if __name__ == "__main__":
    main()
