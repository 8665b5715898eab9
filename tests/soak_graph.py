"""The soak's samples as a picture: `python -m tests.soak_graph SAMPLES.jsonl PICTURE.svg`.

One panel a figure, all over the same time; each has its greatest value written beside it. Plain SVG, by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

WIDTH, PANEL, LEFT, GAP, FOOT = 860, 96, 150, 26, 34
POINTS_MAX = 300


class Figure(NamedTuple):
    """What one panel shows: `key` of each sample, times `factor`."""

    key: str
    title: str
    unit: str
    factor: float
    colour: str


FIGURES = (
    Figure("service_bytes", "memory of the service", "MiB", 2**-20, "#2563eb"),
    Figure("relay_bytes", "of the relay alone", "MiB", 2**-20, "#0891b2"),
    Figure("descriptors", "open descriptors", "", 1, "#7c3aed"),
    Figure("connections", "connections", "", 1, "#9333ea"),
    Figure("rooms", "rooms", "", 1, "#c026d3"),
    Figure("p99_ms", "p99 of an edit, each second", "ms", 1, "#dc2626"),
)


def draw(samples: Sequence[dict[str, float]], caption: str) -> str:
    """The picture of samples that have `at_s` and every figure's key."""
    end_s = max(sample["at_s"] for sample in samples)
    height = len(FIGURES) * (PANEL + GAP) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif"'
        f' font-size="12" fill="#333"><rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    ]
    for number, figure in enumerate(FIGURES):
        parts.append(_panel(samples, figure, 12 + number * (PANEL + GAP), end_s))
    parts.append(f'<text x="{LEFT}" y="{height - 10}">{caption}</text></svg>\n')
    return "\n".join(parts)


def _panel(samples: Sequence[dict[str, float]], figure: Figure, top: int, end_s: float) -> str:
    step = max(1, len(samples) // POINTS_MAX)
    # The greatest of each stretch: a picture must not hide a peak.
    stretches = [samples[at : at + step] for at in range(0, len(samples), step)]
    shown = [
        (stretch[0]["at_s"], max(sample[figure.key] for sample in stretch) * figure.factor) for stretch in stretches
    ]
    most = max(value for _, value in shown) or 1.0
    across = (WIDTH - LEFT - 20) / end_s
    points = " ".join(f"{LEFT + at_s * across:.1f},{top + PANEL - value / most * PANEL:.1f}" for at_s, value in shown)
    return (
        f'<text x="8" y="{top + 14}">{figure.title}</text><text x="8" y="{top + 32}" fill="#777">at most'
        f" {most:,.0f} {figure.unit}</text>"
        f'<path d="M{LEFT},{top} V{top + PANEL} H{WIDTH - 20}" fill="none" stroke="#bbb"/>'
        f'<polyline points="{points}" fill="none" stroke="{figure.colour}" stroke-width="1.2"/>'
    )


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    target.write_text(draw(lines, f"{lines[-1]['at_s']:.0f} s; each point the greatest value of its stretch"))
