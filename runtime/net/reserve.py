"""Address reservations: a name, such as a zone's id, keeps its network's addresses as long as it is told to.

Holds no file: whoever owns the database loads the rows and writes them (`Reservations.rows`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from runtime.net.addresses import (
    GATEWAY_HOST,
    LAST_HOST,
    PREFIX4,
    PREFIX6,
    ZONE_HOST,
    ZoneAddresses,
    allocate_index,
    plan_addresses,
)
from runtime.net.errors import AddressTaken, BadAddress
from runtime.net.pool import POOL4, POOL6


@dataclass(frozen=True)
class Reservation:
    """Network `index` and, in it, the zone's host number belong to `owner`."""

    owner: str
    index: int
    host: int = ZONE_HOST

    @property
    def addresses(self) -> ZoneAddresses:
        """What a zone network is made from."""
        return plan_addresses(self.index, host=self.host)


def parse_static(text: str) -> tuple[int, int]:
    """(index, host) of an address of either pool. Raises BadAddress."""
    expected = f"an address of {POOL4} or {POOL6} that a zone can have"
    try:
        address = ip_address(text)
    except ValueError:
        raise BadAddress(f"address {text!r}", expected=expected, got="no address") from None
    if isinstance(address, IPv4Address) and address in POOL4:
        index, host = divmod(int(address) - int(POOL4.network_address), 1 << (32 - PREFIX4))
    elif isinstance(address, IPv6Address) and address in POOL6:
        index, host = divmod(int(address) - int(POOL6.network_address), 1 << (128 - PREFIX6))
    else:
        raise BadAddress(f"address {text}", expected=expected, got="one of another network")
    if not GATEWAY_HOST < host <= LAST_HOST or index >= 1 << (PREFIX4 - POOL4.prefixlen):
        raise BadAddress(f"address {text}", expected=expected, got="a gateway's, a network's or a broadcast address")
    return index, host


class Reservations:
    """Who has which network. Any thread may use it."""

    def __init__(self, rows: Iterable[Reservation] = ()) -> None:
        self._rows = {row.owner: row for row in rows}
        self._lock = threading.Lock()

    def reserve(self, owner: str, *, address: str = "") -> Reservation:
        """The owner's reservation: the one it has, else a free network, else the one of a static address.

        Raises:  AddressTaken where another owner has that network, or this owner another address; AddressesExhausted.
        """
        with self._lock:
            known = self._rows.get(owner)
            if address:
                index, host = parse_static(address)
                wanted = Reservation(owner, index, host)
                if known not in (None, wanted):
                    raise AddressTaken(f"addresses of {owner}", expected=address, got="it has others already")
                holder = next((row.owner for row in self._rows.values() if row.index == index), owner)
                if holder != owner:
                    subject = f"address {address}"
                    raise AddressTaken(subject, expected="its network free", got=f"{holder} has it")
            elif known is not None:
                wanted = known
            else:
                wanted = Reservation(owner, allocate_index({row.index for row in self._rows.values()}))
            self._rows[owner] = wanted
            return wanted

    def release(self, owner: str) -> None:
        """Give the addresses back; harmless where it has none."""
        with self._lock:
            self._rows.pop(owner, None)

    def of(self, owner: str) -> Reservation | None:
        """The owner's reservation."""
        return self._rows.get(owner)

    def rows(self) -> tuple[Reservation, ...]:
        """All of them, by index."""
        with self._lock:
            return tuple(sorted(self._rows.values(), key=lambda row: row.index))
