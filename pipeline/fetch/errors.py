"""How fetching fails."""

from __future__ import annotations

from pipeline.errors import PipelineError


class BadReference(PipelineError):
    """Text that names no image."""


class NoSuchImage(PipelineError):
    """A registry, layout or the store has no such image, or none for the platform."""


class BadImage(PipelineError):
    """Manifests or configs that contradict themselves or the specification."""


class RegistryError(PipelineError):
    """A registry that cannot be reached, refuses, or answers what it must not."""


class Unreachable(RegistryError):
    """A registry that gives no answer: it is down, breaks every connection, or has too much to do."""
