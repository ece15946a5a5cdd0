"""Root of the runtime's errors; the sentence shape is the pipeline's."""

from __future__ import annotations

from pipeline.errors import SentenceError


class RuntimeFault(SentenceError):
    """Root of every error the runtime raises on purpose."""
