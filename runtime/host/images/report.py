"""What a child tells of its progress: the latest state now and then, not each step."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

from pipeline.jsonmodel import to_json
from pipeline.oci import Descriptor
from pipeline.progress import Bar, Progress
from runtime.host.images import model
from runtime.host.images.model import LayerPhase, LayerProgress, Phase

INTERVAL_S = 0.1
_LAYER = re.compile(r"layer (\d+)/\d+ of ")
# The bars of the stages, by how their titles begin.
_PHASES = {"config of ": Phase.CONFIG_DOWNLOAD, "unpack": Phase.ASSEMBLE, "squash": Phase.PACK, "pack": Phase.PACK}


class Report(Progress):
    """Writes JSON lines. Safe for threads; `say_last` ends it."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._state = model.Progress()
        self._told_at = 0.0
        self._guard = threading.RLock()

    def phase(self, phase: Phase, layers: tuple[Descriptor, ...]) -> None:
        """Another phase begins. layers: of the image, once they are known."""
        with self._guard:
            known = self._state.layers or tuple(
                LayerProgress(str(layer.digest), total_bytes=layer.size_bytes) for layer in layers
            )
            if phase in (Phase.ASSEMBLE, Phase.PACK, Phase.COMPLETE):
                done = LayerPhase.EXTRACTED
                known = tuple(replace(layer, phase=done, done_bytes=layer.total_bytes) for layer in known)
            self._set(model.Progress(phase, known), at_once=True)

    @contextlib.contextmanager
    def bar(self, title: str, *, total: int | None = None, unit: str = "B") -> Iterator[Bar]:
        if match := _LAYER.match(title):
            yield from self._layer(int(match[1]) - 1, total or 0)
            return
        phase = next((phase for begin, phase in _PHASES.items() if title.startswith(begin)), None)
        if phase is None:
            with super().bar(title, total=total, unit=unit) as silent:
                yield silent
            return
        with self._guard:
            self._set(replace(self._state, phase=phase, done_bytes=0, total_bytes=total or 0), at_once=True)
        yield _Bar(self._advance)

    def _layer(self, number: int, total: int) -> Iterator[Bar]:
        self._set_layer(number, phase=LayerPhase.DOWNLOADING, total_bytes=total)
        yield _Bar(lambda amount: self._advance_layer(number, amount))
        self._set_layer(number, phase=LayerPhase.EXTRACTED)

    def say_last(self, document: dict[str, Any]) -> None:
        """The result."""
        with self._guard:
            self._tell()
            self._write(document)

    # -- the state -----------------------------------------------------------------------------------------------------

    def _advance(self, amount: int) -> None:
        with self._guard:
            self._set(replace(self._state, done_bytes=self._state.done_bytes + amount))

    def _advance_layer(self, number: int, amount: int) -> None:
        with self._guard:
            if number < len(self._state.layers):
                self._set_layer(number, at_once=False, done_bytes=self._state.layers[number].done_bytes + amount)

    def _set_layer(self, number: int, *, at_once: bool = True, **fields: Any) -> None:
        with self._guard:
            layers = list(self._state.layers)
            if number < len(layers):
                layers[number] = replace(layers[number], **fields)
            state = replace(self._state, phase=Phase.LAYER_DOWNLOAD, layers=tuple(layers))
            done = sum(layer.done_bytes for layer in layers)
            total = sum(layer.total_bytes for layer in layers)
            self._set(replace(state, done_bytes=done, total_bytes=total), at_once=at_once)

    def _set(self, state: model.Progress, *, at_once: bool = False) -> None:
        self._state = state
        if at_once or time.monotonic() - self._told_at >= INTERVAL_S:
            self._tell()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        self._write({"progress": to_json(self._state)})

    def _write(self, document: dict[str, Any]) -> None:
        self._out.write(json.dumps(document, separators=(",", ":")) + "\n")
        self._out.flush()


class _Bar:
    def __init__(self, advance: Any) -> None:
        self._advance = advance

    def advance(self, amount: int) -> None:
        self._advance(amount)

    def total(self, total: int) -> None: ...
