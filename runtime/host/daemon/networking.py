"""What a zone may do with its network: checked before it boots, changed while it runs or for its next start."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from pipeline.bundle.bandwidth import LEAST_BIT_S, MOST_BIT_S, bandwidth_text, fits
from pipeline.bundle.egress import MOST_RULES, BadRule, parse_rule
from pipeline.bundle.model import Network
from pipeline.jsonmodel import to_json
from runtime.host.daemon import addressing
from runtime.host.daemon.core import Core
from runtime.host.daemon.errors import BadRequest
from runtime.host.daemon.model import Update
from runtime.host.daemon.zone import Zone
from runtime.net.policy import check_rule


def check(network: Network, subject: str) -> None:
    """Everything about a zone's network that can be refused without making it. Raises BadRequest."""
    addressing.check(network.address, subject)
    _check_egress(network.egress, subject)
    if network.bandwidth_bit_s and not fits(network.bandwidth_bit_s):
        expected = f"{bandwidth_text(LEAST_BIT_S)} to {bandwidth_text(MOST_BIT_S)}"
        raise BadRequest(f"{subject}, bandwidth", expected=expected, got=f"{network.bandwidth_bit_s} bit/s")


def _check_egress(rules: Sequence[str], subject: str) -> None:
    """A rule, one that opens what no rule opens, too many."""
    if len(rules) > MOST_RULES:
        raise BadRequest(f"{subject}, egress rules", expected=f"{MOST_RULES} at most", got=str(len(rules)))
    for text in rules:
        try:
            check_rule(parse_rule(text), text)
        except BadRule as error:
            raise BadRequest(f"{subject}, egress rule", expected=error.expected, got=repr(text)[:120]) from None


def changed(zone: Zone, change: Update) -> Network:
    """The zone's network as an update wants it. Raises BadRequest."""
    network = zone.bundle.network
    if change.egress is not None:
        network = dataclasses.replace(network, egress=change.egress)
    if change.bandwidth_bit_s is not None:
        network = dataclasses.replace(network, bandwidth_bit_s=change.bandwidth_bit_s)
    check(network, f"zone {zone.name}")
    return network


async def apply(core: Core, zone: Zone, network: Network) -> None:
    """Bring what runs from the zone's network as it is to another. Raises EngineFault, NetworkFault."""
    run, before = zone.run, zone.bundle.network
    if run is None or run.network is None:
        return
    wire = run.network
    async with contextlib.AsyncExitStack() as undo:
        if network.egress != before.egress:
            await core.thread(wire.judge_by, network.egress)
            undo.push_async_callback(core.thread, wire.judge_by, before.egress)
        if network.bandwidth_bit_s != before.bandwidth_bit_s:
            await core.thread(wire.limit, network.bandwidth_bit_s)
            undo.push_async_callback(core.thread, wire.limit, before.bandwidth_bit_s)
        if network != before:  # for a zoned whose database is lost
            await core.thread(lambda: run.ledger.record("network", network=to_json(network)))
        undo.pop_all()
