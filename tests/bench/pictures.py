"""Pictures of the benchmarks, as SVG: stacked bars beside each other, and one packing over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from traced_pack import Trace

LEFT, WIDTH, RIGHT = 210, 640, 110
COLOURS = ("#4269d0", "#ff8f2c", "#3ca951", "#a463f2", "#6cc5b0", "#ff8ab7", "#9c6b4e", "#97bbf5")
GREY, BAR, TICKS = "#666", "#8aa3e6", 10

Stack = Sequence[tuple[str, float]]


def stacked(title: str, note: str, groups: Mapping[str, Mapping[str, Stack]], unit: str = "s") -> str:
    """Bars of seconds, or of another unit.

    groups:  heading -> label of a bar -> its parts (name, value); parts of one name have one colour.
    """
    names = list(dict.fromkeys(name for bars in groups.values() for parts in bars.values() for name, _ in parts))
    longest = max(sum(value for _, value in parts) for bars in groups.values() for parts in bars.values())
    scale, y, out = WIDTH / longest, 66, list[str]()
    x = LEFT
    for index, name in enumerate(names):
        out += [_box(x, 50, 12, 12, _colour(index)), _text(x + 17, 61, name, size=12)]
        x += 34 + round(6.4 * len(name))
    for heading, bars in groups.items():
        y += 30
        out.append(_text(12, y, heading, size=14, weight="bold"))
        for label, parts in bars.items():
            y += 8
            out.append(_text(LEFT - 8, y + 15, label, anchor="end"))
            at = float(LEFT)
            for name, value in parts:
                width = max(value * scale, 1.0)
                out.append(_box(at, y, width, 20, _colour(names.index(name))))
                if width > 40:
                    out.append(_text(at + width / 2, y + 15, f"{value:.2f}", anchor="middle", colour="#fff"))
                at += width
            out.append(_text(at + 6, y + 15, f"{sum(value for _, value in parts):.2f} {unit}"))
            y += 20
    return _document(title, note, y + 24, out)


def timeline(title: str, note: str, trace: Trace) -> str:
    """The steps of a packing, and below them how many processors each program had at the time."""
    end = trace.wall_s
    scale = WIDTH / end
    row, top = 24, 60
    bars = sorted(trace.bars, key=lambda bar: (bar[1], bar[2]))
    chart, base = top + row * len(bars) + 34, top + row * len(bars) + 34 + 110
    out = _grid(end, scale, top, base)
    for index, (name, start, stop) in enumerate(bars):
        y, width = top + index * row, max((stop - start) * scale, 1.5)
        out.append(_text(LEFT - 8, y + 16, name if len(name) <= 30 else name[:29] + "…", anchor="end"))
        out.append(_box(LEFT + start * scale, y + 4, width, row - 9, BAR))
        out.append(_text(LEFT + start * scale + width + 5, y + 16, f"{stop - start:.2f} s"))
    out.append(_text(LEFT - 8, chart - 4, "processors in use", anchor="end"))
    for cores in (1, 2):
        y = base - cores * 45
        out.append(f'<line x1="{LEFT}" y1="{y}" x2="{LEFT + WIDTH}" y2="{y}" stroke="#bbb" stroke-dasharray="3 3"/>')
        out.append(_text(LEFT - 8, y + 4, str(cores), anchor="end", colour=GREY))
    below = [0.0] * (int(WIDTH / 2) + 1)
    for index, (program, samples) in enumerate(trace.cpu.items()):
        levels = _levels(samples, end, len(below))
        above = [low + level for low, level in zip(below, levels, strict=True)]
        points = [(LEFT + 2 * at, base - 45 * level) for at, level in enumerate(above)]
        points += [(LEFT + 2 * at, base - 45 * level) for at, level in reversed(list(enumerate(below)))]
        outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polygon points="{outline}" fill="{_colour(index)}" fill-opacity="0.8"/>')
        out += [_box(LEFT + WIDTH - 200 + index * 100, 46, 12, 12, _colour(index))]
        out.append(_text(LEFT + WIDTH - 183 + index * 100, 57, program, size=12))
        below = above
    return _document(title, note, base + 34, out)


def _levels(samples: Sequence[tuple[float, float]], end: float, count: int) -> list[float]:
    """Processors in use at `count` moments, each the mean of what was sampled near it."""
    totals, numbers = [0.0] * count, [0] * count
    for index, (when, level) in enumerate(samples):
        before = samples[index - 1][0] if index else when
        first, last = (min(count - 1, int(time / end * (count - 1))) for time in (before, when))
        for at in range(first, last + 1):
            totals[at] += level
            numbers[at] += 1
    raw = [total / number if number else 0.0 for total, number in zip(totals, numbers, strict=True)]
    spread = 4
    return [sum(part) / len(part) for at in range(count) if (part := raw[max(0, at - spread) : at + spread + 1])]


def _grid(end: float, scale: float, top: int, base: int) -> list[str]:
    tick = next((size for size in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if end / size <= TICKS), 10.0)
    out = []
    for index in range(int(end / tick) + 1):
        x = LEFT + index * tick * scale
        out.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{base}" stroke="#ddd"/>')
        out.append(_text(x, base + 18, f"{index * tick:g} s", anchor="middle", colour=GREY))
    return out


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="2" fill="{colour}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = "#222",
    size: int = 13,
    weight: str = "normal",
) -> str:
    style = f'text-anchor="{anchor}" fill="{colour}" font-size="{size}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _document(title: str, note: str, height: int, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" '
        'font-family="system-ui, sans-serif"><rect width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join(
        [head, _text(12, 22, title, size=16), _text(12, 40, note, colour=GREY, size=12), *body, "</svg>\n"]
    )
