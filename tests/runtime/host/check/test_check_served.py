"""What zoned answers to `zone system check`: its zones' logs and networks are known, all else is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.checking import checked_host, small_plan

from runtime.host.daemon import hoststate
from runtime.host.daemon.core import Settings
from runtime.host.ledger import LedgerDir
from runtime.host.serve.checking import Checker


def test_reply_has_what_belongs_to_no_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    for name in ("known", "forgotten", "diskless"):
        for kind in ("logs", "scratch"):
            (state / kind / name).mkdir(parents=True)
            (state / kind / name / "file").touch()
    with checked_host(tmp_path, "", monkeypatch) as host:
        (host.run / "net" / "old").mkdir(parents=True)
        ledger = host.ledgers.create("0f0e0d0c")
        ledger.record("zone", name="web", id="known")
        built = host.build(ledger, small_plan(tmp_path))
        host.xenstore.write("/local/domain/12/name", "old")
        core = SimpleNamespace(
            settings=Settings(host.run, state),
            zones={
                name: SimpleNamespace(id=name, bundle=SimpleNamespace(scratch_mib=size_mib))
                for name, size_mib in (("known", 16), ("diskless", 0))
            },
            scratch_of=lambda zone: state / "scratch" / zone.id,
            ledgers=host.ledgers,
            network_ledgers=LedgerDir(host.run / "networks"),
            edge=SimpleNamespace(hypervisor=host.hypervisor(), xenstore=host.xenstore, stores=(host.store,)),
        )
        reply = asyncio.run(Checker(lambda: hoststate.check(core))())  # type: ignore[arg-type]
        shared = ("netns", "process", "mount", "vif", "loop")  # other tests of this machine have some
        found = {(finding.kind, finding.what) for finding in reply.findings if finding.kind not in shared}
        assert found == {
            ("xenstore", "/local/domain/12"),
            ("file", str(host.run / "net" / "old")),
            ("file", str(state / "logs" / "forgotten")),
            ("file", str(state / "scratch" / "forgotten")),
            ("file", str(state / "scratch" / "diskless")),
        }
        assert all(finding.problem and finding.remedy for finding in reply.findings if finding.kind not in shared)
        assert (reply.looked_at["domains"], reply.looked_at["ledgers"]) == (1, 1)
        assert list(reply.unseen) == []
        built.destroy()
