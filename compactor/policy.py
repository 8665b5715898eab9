"""Is a document's tail worth merging, and is it wanted now? Pure: a backlog and a policy in, a verdict out.

Every compaction writes the whole document again, so a tail must first be worth it: heavy enough against the
snapshot that the bytes written stay within a few times the bytes that were accepted (write amplification). Then
it is wanted by its rows, its bytes or its age, whichever comes first. No clock, no I/O and no SQL here.
"""

from __future__ import annotations

from dataclasses import dataclass

ROW_COST_BYTES = 88
"""What a log row takes beside its frames: tuple header, line pointer, fixed columns and its index entry."""

AMPLIFICATION_MAX = 8.0
"""A snapshot is rewritten for at least an eighth of its own bytes. With the history segment, at most the tail's
bytes once more, and the row that says what was done, compaction stays under ten bytes written for one accepted."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The accepted rows behind a document's snapshot: how many, their bytes, and the age of the oldest.

    `snapshot_bytes` is what the snapshot takes on disk, 0 where there is none.
    """

    rows: int
    bytes: int
    age_s: float
    snapshot_bytes: int

    @property
    def weight_bytes(self) -> int:
        """What the tail's rows take in the table and its index."""
        return self.bytes + self.rows * ROW_COST_BYTES


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """From which size or age on a tail is wanted; any one of the three is enough."""

    tail_rows: int = 500
    tail_bytes: int = 64 * 1024
    tail_age_s: float = 3_600.0
    amplification_max: float = AMPLIFICATION_MAX


@dataclass(frozen=True, slots=True)
class Due:
    """Merge it now; the reason names the threshold that was crossed, with both figures."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotDue:
    """Leave it for now; the reason says what is missing."""

    reason: str


def due(backlog: Backlog, policy: CompactionPolicy) -> Due | NotDue:
    """Whether this tail is merged now, and why. Never raises; the same input gives the same verdict."""
    if backlog.rows <= 0:
        return NotDue("the tail is empty")
    needed_bytes = backlog.snapshot_bytes / policy.amplification_max
    if backlog.weight_bytes < needed_bytes:
        return NotDue(
            f"the tail weighs {backlog.weight_bytes} bytes, and rewriting a snapshot of "
            f"{backlog.snapshot_bytes} bytes is worth it from {needed_bytes:.0f} on"
        )
    if backlog.rows >= policy.tail_rows:
        return Due(f"rows: {backlog.rows} of {policy.tail_rows}")
    if backlog.bytes >= policy.tail_bytes:
        return Due(f"bytes: {backlog.bytes} of {policy.tail_bytes}")
    if backlog.age_s >= policy.tail_age_s:
        return Due(f"age: {backlog.age_s:.0f} s of {policy.tail_age_s:.0f} s")
    return NotDue(
        f"{backlog.rows} rows of {policy.tail_rows}, {backlog.bytes} bytes of {policy.tail_bytes}, "
        f"{backlog.age_s:.0f} s old of {policy.tail_age_s:.0f} s"
    )
