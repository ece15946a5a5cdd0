"""How image tasks fail."""

from __future__ import annotations

from runtime.errors import RuntimeFault
from runtime.host.faults import RemoteFault


class ImageFault(RemoteFault):
    """What a child raised; `kind` is the name of its class there."""


class ChildDied(RuntimeFault):
    """A child that ended without a word."""
