"""How an image fails to be an extension."""

from __future__ import annotations

from pipeline.errors import PipelineError


class NotAnExtension(PipelineError):
    """An image that does not say, or wrongly says, what kind of extension it is."""


class BadExtension(PipelineError):
    """An extension image with something in it that its kind may not have."""
