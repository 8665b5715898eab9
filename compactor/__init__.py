"""The compactor: merges what piled up in the log into snapshot rows, and deletes exactly what it merged.

It meets the relay only in the tables; `ydoc_store` never imports this package, its command line apart. The
decision is pure (`policy`), the merge is pure (`fold`) and runs in a child process (`worker`), one document is one
transaction (`compaction`), and everything else is about which document and when (`sweep`, `schedule`).
"""

from __future__ import annotations
