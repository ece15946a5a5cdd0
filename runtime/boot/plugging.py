"""Nodes of devices of a running domain, written and removed as one change while its tree is still its own.

A domain may end at any moment, and its domid be another's right after: what is written then would be the other's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from runtime.boot.errors import BadSpec, DomainGone
from runtime.boot.model import Node
from runtime.boot.nodes import UUID_NODE, domain_path
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from runtime.boot.domain import Domain
    from runtime.boot.xenstore import Transaction


class Refused(Exception):
    """Nothing was written. fault: why."""

    def __init__(self, fault: RuntimeFault) -> None:
        super().__init__(fault)
        self.fault = fault


def write(domain: Domain, nodes: Sequence[Node], backend: str, taken: BadSpec, *, stale: Iterable[str] = ()) -> None:
    """Write both halves of a device.

    backend: the path of its half here. taken: to be raised where there is one. stale: paths to remove first.
    Raises:  Refused.
    """

    def change(transaction: Transaction) -> None:
        if transaction.read(f"{domain_path(domain.domid)}/{UUID_NODE}") != domain.uuid:
            raise Refused(ended(domain))
        if transaction.read(f"{backend}/state") is not None:
            raise Refused(taken)
        for path in stale:
            transaction.remove(path)
        transaction.apply(nodes)

    domain.xenstore.transaction(change)


def remove(domain: Domain, *paths: str) -> None:
    """Remove what is there of these; but not what is of another domain that got this domid."""

    def change(transaction: Transaction) -> None:
        if transaction.read(f"{domain_path(domain.domid)}/{UUID_NODE}") in (None, domain.uuid):
            for path in paths:
                transaction.remove(path)

    domain.xenstore.transaction(change)


def ended(domain: Domain) -> DomainGone:
    """What is raised of a domain that has gone."""
    return DomainGone(f"zone {domain.name}", expected="it running", got="it has ended")
