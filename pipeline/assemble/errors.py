"""How a zone's parts fail to go together."""

from __future__ import annotations

from pipeline.errors import PipelineError


class Misfit(PipelineError):
    """An extension that does not fit the zone, or another extension of it."""


class Clash(PipelineError):
    """Two images that both have a path, or a module."""


class NoSuchModule(PipelineError):
    """A module that is asked for or needed, and is nowhere."""
