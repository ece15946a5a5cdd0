"""How squashing fails; what goes wrong in writing is in pipeline.squashfs."""

from __future__ import annotations

from pipeline.errors import PipelineError


class UnknownFormat(PipelineError):
    """A file system format this stage does not write."""
