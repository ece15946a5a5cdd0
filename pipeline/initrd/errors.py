"""How making an initrd fails."""

from __future__ import annotations

from pipeline.errors import PipelineError


class BadKernel(PipelineError):
    """A kernel image that is damaged, of an unknown form, or no Xen PV kernel."""
