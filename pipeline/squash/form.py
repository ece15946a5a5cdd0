"""What a format is to the stage: which words name it in an action key, and what writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.oci import Descriptor
from pipeline.progress import Progress
from pipeline.rootfs import Rootfs
from pipeline.store import Store


@dataclass(frozen=True)
class Form:
    """One format in one compression.

    params: what decides the bytes besides the tree and the tools.
    tools:  the programs and libraries that decide them, with versions; asked for late, as it may start a program.
    write:  (store, image, progress, bytes of all its files) -> the blob.
    """

    params: dict[str, Any]
    tools: Callable[[], dict[str, str]]
    write: Callable[[Store, Rootfs, Progress, int], Descriptor]
