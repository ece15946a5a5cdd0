"""The ways zoned says no."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class UnknownZone(RuntimeFault):
    """No zone, or no workload, of that name or id on this host."""


class UnknownNetwork(RuntimeFault):
    """No shared network of that name on this host."""


class NameTaken(RuntimeFault):
    """A zone, or a network, of that name is there already."""


class BadRequest(RuntimeFault):
    """A request zoned cannot make sense of."""


class WrongState(RuntimeFault):
    """Asked of a zone that is not in a state for it: an exec in one that has exited, say."""


class BootCancelled(RuntimeFault):
    """A boot that somebody stopped, or that nobody waits for any more."""


class ZoneFailed(RuntimeFault):
    """A zone ended before, or instead of, what was asked of it."""


class NotEnough(RuntimeFault):
    """This host has not the memory, or not the room in its queue, for one more zone."""


class NoAgent(RuntimeFault):
    """The zone's agent does not answer: an old init, or a channel that is down."""


class WaitTimeout(RuntimeFault):
    """What was waited for did not come in time."""


class BlobMissing(RuntimeFault):
    """A blob a boot needs is on no disk and in no store of this host."""


class BadToken(RuntimeFault):
    """An event token of another database, or one whose successors are no longer kept."""


class StateDamaged(RuntimeFault):
    """The database is of a zonewright newer than this one, or cannot be used."""


class NotPrepared(RuntimeFault):
    """This host lacks what zones need; status says what."""


class NotAdoptable(RuntimeFault):
    """A run of an earlier zoned that cannot go on under another, as its ledger shows."""
