"""How bundling fails."""

from __future__ import annotations

from pipeline.errors import PipelineError


class BadSpec(PipelineError):
    """A spec that fits its schema but asks for what cannot be."""


class BadImageConfig(PipelineError):
    """An image config that does not say, or wrongly says, what to run."""


class NoSuchUser(PipelineError):
    """A user or group name that the image does not define."""
