"""A progress that keeps what was said."""

from __future__ import annotations

from pipeline.progress import Progress


class Said(Progress):
    """`lines`: each line that a user would have read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)
