"""A blkback for tests: follows the states of the back ends in a fake xenstored, as the kernel and a guest would."""

from __future__ import annotations

import threading
from collections.abc import Callable

from runtime.boot.xenstore import Transaction, XenStore
from support.xenstored import FakeXenstored

ROOT = "/local/domain/0/backend/vbd"


class FakeBlkback:
    """Connects new back ends, closes those that are to close.

    refuses:   numbers whose guest never takes the disk; stubborn: numbers whose guest never gives it back.
    fails:     number -> what the kernel writes instead of connecting.
    """

    def __init__(self, xenstored: FakeXenstored) -> None:
        self.refuses: set[str] = set()
        self.stubborn: set[str] = set()
        self.fails: dict[str, str] = {}
        self.history: list[tuple[str, str]] = []
        self.before_connecting: Callable[[str], None] = lambda path: None
        self._store = XenStore(xenstored.path, timeout_s=60)
        self._stop = threading.Event()
        self._watch = self._store.watch(ROOT)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._watch.put(b"stop")
        self._thread.join()
        self._store.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._watch.wait(1.0)
            for domid in self._store.children(ROOT):
                for number in self._store.children(f"{ROOT}/{domid}"):
                    self._follow(f"{ROOT}/{domid}/{number}", number)

    def _follow(self, path: str, number: str) -> None:
        state = self._store.read(f"{path}/state")
        if state == "1" and number in self.fails:
            self._fail(path, self.fails[number])
        elif state == "1" and number not in self.refuses:
            self.before_connecting(path)
            self._become(path, "4")
        elif state == "5" and number not in self.stubborn:
            self._become(path, "6")

    def _fail(self, path: str, words: str) -> None:
        error = path.replace("/backend/vbd", "/error/backend/vbd") + "/error"

        def tell(transaction: Transaction) -> None:
            if transaction.read(f"{path}/state") is not None:  # this thread may be slower than who removes it
                transaction.write(error, words)

        self._store.transaction(tell)

    def _become(self, path: str, state: str) -> None:
        self.history.append((path, state))

        def switch(transaction: Transaction) -> None:
            if transaction.read(f"{path}/state") is not None:  # as the kernel does: what was removed stays so
                transaction.write(f"{path}/state", state)

        self._store.transaction(switch)
