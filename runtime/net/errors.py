"""How zone networking fails."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class AddressesExhausted(RuntimeFault):
    """Every subnet of the pool is used by a network."""


class NetworkFault(RuntimeFault):
    """A namespace, link or rule could not be made or removed."""


class PortTaken(RuntimeFault):
    """Another program listens where a zone's port should be published."""


class EngineFault(RuntimeFault):
    """The engine of a network does not start or answer."""
