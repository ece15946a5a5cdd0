"""The xenstore client over a real socket: what pyxs refuses works, and nothing waits for ever."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.xenstored import FakeXenstored

from runtime.boot import xenstore
from runtime.boot.errors import XenstoreFault
from runtime.boot.model import Node
from runtime.boot.xenstore import Transaction, XenStore


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeXenstored]:
    fake = FakeXenstored(tmp_path)
    yield fake
    fake.close()


@pytest.fixture
def store(daemon: FakeXenstored) -> Iterator[XenStore]:
    with XenStore(daemon.path, timeout_s=60) as client:
        yield client


@pytest.mark.parametrize("value", ["", "line\nline", "grüß", "a" * 4000, "plain", "tab\tand blank "])
def test_any_text_is_written_and_kept(daemon: FakeXenstored, store: XenStore, value: str) -> None:
    store.write("/tool/x", value)
    assert daemon.value("/tool/x") == value


def test_reading(daemon: FakeXenstored, store: XenStore) -> None:
    daemon.put("/tool/a", b"1")
    daemon.put("/tool/b/c", b"")
    daemon.put("/tool/raw", b"\x00\xff\n")
    assert (store.read("/tool/a"), store.read("/tool/b/c"), store.read("/tool/none")) == ("1", "", None)
    assert store.read("/tool/raw") == "\0\ufffd\n"
    assert store.children("/tool") == ["a", "b", "raw"]
    assert store.children("/none") == []


@pytest.mark.parametrize("path", ["", "/a b", "/a//b", "/a/", "/a:b", "/ä", "/" + "x" * 4000])
def test_path_that_xenstore_does_not_allow_is_a_fault(store: XenStore, path: str) -> None:
    for act in (store.read, lambda p: store.write(p, "v"), store.remove):
        with pytest.raises(XenstoreFault):
            act(path)


def test_value_beyond_a_message_is_a_fault_and_the_connection_lives(store: XenStore) -> None:
    with pytest.raises(XenstoreFault, match="too long"):
        store.write("/tool/x", "v" * 5000)
    store.write("/tool/x", "v")
    assert store.read("/tool/x") == "v"


def test_removing_what_is_not_there_is_fine(store: XenStore) -> None:
    store.remove("/local/domain/7/device/vbd")
    store.transaction(lambda transaction: transaction.remove("/nowhere/at/all"))


def test_nodes_are_applied_in_one_commit_with_their_permissions(daemon: FakeXenstored, store: XenStore) -> None:
    store.apply([Node("/local/domain/3", None, ("n0", "r3")), Node("/local/domain/3/name", "web")])
    assert daemon.commits == 1
    assert store.get_perms("/local/domain/3/name") == ["n0", "r3"]


def test_transaction_is_repeated_whole_when_others_change_the_tree(daemon: FakeXenstored, store: XenStore) -> None:
    daemon.eagain = 3
    rounds: list[int] = []

    def body(transaction: Transaction) -> str:
        rounds.append(len(rounds))
        transaction.write("/tool/x", str(len(rounds)))
        return "done"

    assert store.transaction(body) == "done"
    assert len(rounds) == 4
    assert daemon.value("/tool/x") == "4"


def test_transaction_reads_what_it_wrote_and_others_do_not(daemon: FakeXenstored, store: XenStore) -> None:
    def body(transaction: Transaction) -> None:
        transaction.write("/tool/x", "new")
        assert transaction.read("/tool/x") == "new"
        assert store.read("/tool/x") is None

    store.transaction(body)
    assert store.read("/tool/x") == "new"


def test_exception_in_a_transaction_rolls_back(daemon: FakeXenstored, store: XenStore) -> None:
    def body(transaction: Transaction) -> None:
        transaction.write("/tool/x", "new")
        raise KeyError("stop")

    with pytest.raises(KeyError):
        store.transaction(body)
    assert store.read("/tool/x") is None
    assert daemon.requests[-2] == "end"


def test_many_threads_share_a_connection(daemon: FakeXenstored, store: XenStore) -> None:
    faults: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                store.apply([Node(f"/tool/{number}/a", str(turn)), Node(f"/tool/{number}/b", str(turn))])
                assert store.read(f"/tool/{number}/a") == str(turn)
        except BaseException as problem:
            faults.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert [daemon.value(f"/tool/{number}/b") for number in range(6)] == ["9"] * 6


def test_watch_fires_at_once_and_on_changes_below_it(daemon: FakeXenstored, store: XenStore) -> None:
    with store.watch("/tool") as watch:
        assert watch.wait(60) == "/tool"
        daemon.put("/tool/deep/er", b"1")
        assert watch.wait(60) == "/tool/deep/er"
        daemon.put("/local/other", b"1")
        assert watch.wait(0) is None
    assert "unwatch" in daemon.requests


def test_special_watch(daemon: FakeXenstored, store: XenStore) -> None:
    with store.watch("@releaseDomain") as watch:
        assert watch.wait(60) == "@releaseDomain"
        daemon.fire("@releaseDomain")
        assert watch.wait(60) == "@releaseDomain"


def test_flood_of_events_is_bounded_and_still_tells(daemon: FakeXenstored, store: XenStore) -> None:
    with store.watch("/tool") as watch:
        for turn in range(3000):
            daemon.put("/tool/x", b"%d" % turn)
        assert store.read("/tool/x") == "2999"  # all events are in: replies and events share the connection
        seen = 0
        while watch.wait(0.2):
            seen += 1
        assert 0 < seen <= 256


def test_xenstored_that_goes_away_ends_waits_and_calls(daemon: FakeXenstored, store: XenStore) -> None:
    watch = store.watch("/tool")
    assert watch.wait(60)
    threading.Timer(0.1, daemon.close).start()
    with pytest.raises(XenstoreFault, match="went away"):
        watch.wait(30)
    for act in (lambda: store.read("/tool"), lambda: store.write("/tool/x", "1"), lambda: store.apply([Node("/x")])):
        with pytest.raises(XenstoreFault, match="went away"):
            act()
    watch.close()


def be_silent(daemon: FakeXenstored, store: XenStore, *, silent: bool) -> None:
    """What does not come is waited for a moment, and what comes as long as a busy machine takes for it."""
    daemon.silent = silent
    store._client.router.timeout_s = 0.05 if silent else 60.0


def test_xenstored_that_is_silent_is_given_up(daemon: FakeXenstored, store: XenStore) -> None:
    be_silent(daemon, store, silent=True)
    with pytest.raises(XenstoreFault, match="no answer") as caught:
        store.read("/tool")
    assert caught.value.temporary
    be_silent(daemon, store, silent=False)
    store.write("/tool/x", "1")
    assert store.read("/tool/x") == "1"


def test_silence_is_waited_for_once_however_much_was_asked(
    daemon: FakeXenstored, store: XenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    get = xenstore._Reply.get

    def counted(reply: xenstore._Reply) -> Any:
        waits.append(len(waits))
        return get(reply)

    monkeypatch.setattr(xenstore._Reply, "get", counted)

    def body(transaction: Transaction) -> None:
        be_silent(daemon, store, silent=True)
        waits.clear()
        for number in range(100):
            transaction.write(f"/tool/{number}", "1")

    with pytest.raises(XenstoreFault, match="no answer"):
        store.transaction(body)
    assert len(waits) == 2, "for the first of them, and for the end of the transaction"
    be_silent(daemon, store, silent=False)
    assert store.read("/tool/0") is None


def test_what_was_sent_in_part_ends_the_connection(tmp_path: Path) -> None:
    """xenstored would take what follows for the rest of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "deaf"))
        listener.listen()
        with XenStore(str(tmp_path / "deaf"), timeout_s=0.05) as store:
            much = Transaction(store._client)
            for number in range(1000):
                much.write(f"/tool/{number}", "v" * 4000)
            with pytest.raises(XenstoreFault, match="sending to xenstored: timed out"):
                much.finish()
            store._client.router.thread.join(60)
            assert store.gone


def test_no_xenstored_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(XenstoreFault, match="is xenstored running"):
        XenStore(str(tmp_path / "none"))


def test_introduce(daemon: FakeXenstored, store: XenStore) -> None:
    store.introduce(5, 0x1234, 1)  # type: ignore[arg-type]
    assert daemon.introduced == [(5, 0x1234, 1)]
