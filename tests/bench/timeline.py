"""Draws the boot timeline: one bar per step, host and zone one below the other, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

Step = tuple[str, float, float]

ROW, LEFT, WIDTH, TOP = 26, 190, 760, 54
COLOURS = {"host": "#4269d0", "zoned": "#ff8f2c", "zone": "#3ca951"}


def draw(title: str, lanes: Sequence[tuple[str, Sequence[Step]]], *, note: str = "") -> str:
    """An SVG document.

    lanes:  (lane, steps); lane is host, zoned or zone; steps are (name, start, end) in seconds from one origin.
    """
    rows = [(lane, *step) for lane, steps in lanes for step in steps]
    end = max((stop for *_, stop in rows), default=1.0) or 1.0
    tick = next(size for size in (0.5, 1, 2, 5, 10, 20, 60, 120) if end / size <= 12 or size == 120)
    height = TOP + ROW * len(rows) + 40
    scale = WIDTH / end
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 90} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="#fff"/><text x="12" y="22" font-size="16">{escape(title)}</text>',
        f'<text x="12" y="40" fill="#666" font-size="12">{escape(note)}</text>',
    ]
    for index in range(int(end / tick) + 1):
        x = LEFT + index * tick * scale
        out.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{height - 30}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.1f}" y="{height - 12}" text-anchor="middle" fill="#666">{index * tick:g} s</text>')
    for index, (lane, name, start, stop) in enumerate(rows):
        y = TOP + index * ROW
        x, width = LEFT + start * scale, max((stop - start) * scale, 1.5)
        out.append(f'<text x="{LEFT - 8}" y="{y + 17}" text-anchor="end">{escape(name)}</text>')
        out.append(
            f'<rect x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{ROW - 9}" rx="2" fill="{COLOURS[lane]}"/>'
        )
        out.append(f'<text x="{x + width + 5:.1f}" y="{y + 17}" fill="#333">{stop - start:.2f} s</text>')
    for index, (lane, colour) in enumerate(COLOURS.items()):
        x = LEFT + WIDTH - 210 + index * 75
        out.append(
            f'<rect x="{x}" y="12" width="12" height="12" fill="{colour}"/><text x="{x + 17}" y="23">{lane}</text>'
        )
    return "\n".join([*out, "</svg>", ""])
