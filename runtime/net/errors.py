"""How zone networking fails."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class AddressesExhausted(RuntimeFault):
    """Every subnet of the pool is used by a network."""


class AddressTaken(RuntimeFault):
    """A zone's own address, or its network, that another has."""


class BadAddress(RuntimeFault):
    """An address no zone can have."""


class NetworkFault(RuntimeFault):
    """A namespace, link or rule could not be made or removed."""


class PortTaken(RuntimeFault):
    """Another program, or another zone, listens where a zone's port should be published."""


class EngineFault(RuntimeFault):
    """The engine of a network does not start or answer."""


class SilentEngine(EngineFault):
    """An engine that runs, and gives no answer in time."""


class OutdatedEngine(EngineFault):
    """An engine that runs, of a version whose descriptors are others."""


class UnknownToEngine(EngineFault):
    """A zone, or a port of one, that the engine of its network does not have."""


class BadPools(NetworkFault):
    """Address pools that this host cannot have."""
