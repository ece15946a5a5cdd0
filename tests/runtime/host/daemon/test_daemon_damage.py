"""A database, or a ledger, that is not as it should be: it costs what it is about, is said, and nothing else stands."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from support.daemonworld import Host, run

from runtime.host.daemon.errors import StateDamaged
from runtime.host.daemon.manager import Manager


def refuse_deletions(monkeypatch: pytest.MonkeyPatch, manager: Manager) -> None:
    """The disk is full whenever something is to be forgotten."""
    commit = manager.core.database._commit

    def fail(statements: Any) -> None:
        if any(sql.startswith("DELETE FROM") for sql, _ in statements):
            raise sqlite3.OperationalError("database or disk is full")
        commit(statements)

    monkeypatch.setattr(manager.core.database, "_commit", fail)


def test_network_and_reservation_whose_removal_cannot_be_written_stay(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        manager = await host.start()
        await manager.create_network("back", 1500)
        reservation = await manager.create_reservation()
        with monkeypatch.context() as patches:
            refuse_deletions(patches, manager)
            with pytest.raises(StateDamaged, match="expected to write to it, got database or disk is full"):
                await manager.remove_network("back")
            with pytest.raises(StateDamaged, match="expected to write to it, got database or disk is full"):
                await manager.destroy_reservation(reservation.id)
        assert [network.name for network in await manager.networks()] == ["back"]
        assert [kept.id for kept in manager.list_reservations()] == [reservation.id]
        await manager.remove_network("back")
        await manager.destroy_reservation(reservation.id)
        await host.stop()

    run(work())
