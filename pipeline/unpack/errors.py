"""How unpacking fails."""

from __future__ import annotations

from pipeline.errors import PipelineError


class BadLayer(PipelineError):
    """A layer that breaks the tar format, or on which tar readers disagree; names the offset and the rule."""


class BadPath(PipelineError):
    """An entry whose name or place in the tree cannot be."""


class LimitExceeded(PipelineError):
    """An image larger, deeper or fuller than the limits allow."""
