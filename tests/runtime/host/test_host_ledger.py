"""The ledger survives what its writers do not."""

from __future__ import annotations

import resource

import pytest

from runtime.host.ledger import LedgerBusy, LedgerDir


def test_records_come_back_in_order(tmp_path):
    ledger = LedgerDir(tmp_path).create("web")
    ledger.record("domain", domid=3, uuid="u")
    ledger.record("vif", domid=3)
    (again,) = LedgerDir(tmp_path).all()
    assert again.name == "web"
    assert again.records() == [{"kind": "domain", "domid": 3, "uuid": "u"}, {"kind": "vif", "domid": 3}]


def test_torn_last_line_is_left_out(tmp_path):
    ledger = LedgerDir(tmp_path).create("web")
    ledger.record("netns", name="web")
    with open(ledger.path, "ab") as file:
        file.write(b'{"kind":"dom')
    assert ledger.records() == [{"kind": "netns", "name": "web"}]


def test_record_for_which_there_is_no_room_is_an_error_and_costs_no_other(tmp_path):
    ledger = LedgerDir(tmp_path).create("web")
    ledger.record("netns", name="web")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.path.stat().st_size + 10, hard))  # the kernel writes 10 bytes
    try:
        with pytest.raises(OSError, match="No space left on device"):
            ledger.record("domain", domid=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    ledger.record("vif", domid=3)
    assert ledger.records() == [{"kind": "netns", "name": "web"}, {"kind": "vif", "domid": 3}]


def test_a_zone_has_one_ledger_until_it_is_closed(tmp_path):
    ledgers = LedgerDir(tmp_path)
    ledger = ledgers.create("web")
    with pytest.raises(LedgerBusy, match="run web: it is still being torn down"):
        ledgers.create("web")
    ledger.close()
    assert not list(ledgers.all())
    ledgers.create("web")
