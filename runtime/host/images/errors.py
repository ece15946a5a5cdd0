"""How image tasks fail."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class ImageFault(RuntimeFault):
    """What a child raised; `kind` is the name of its class there."""

    kind = ""


class ChildDied(RuntimeFault):
    """A child that ended without a word."""
