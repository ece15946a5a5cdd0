"""Whom zoned's store belongs to: the user `zonewright` where there is one, and then children run as that user.

zoned itself is root and writes into that store as well; what it makes there can be read by all and replaced by the
owner of the directories.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from pipeline.store import Store

USER = "zonewright"


@dataclass(frozen=True)
class Account:
    """Numbers to run as."""

    uid: int
    gid: int


def open_store(root: Path) -> Store:
    """The store in that directory, which is made for the user `zonewright` where it is new. Raises StoreUnfit."""
    if os.geteuid() == 0 and not root.exists():
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(USER)
            root.mkdir(parents=True, mode=0o755)
            os.chown(root, user.pw_uid, user.pw_gid)
    store = Store(root)
    if (account := account_of(root)) is not None:
        inner = (store.blobs.parent, store.blobs, store.results, store.locks, store.tmp, store.used, store.checkouts)
        for path in (*inner, *store.locks.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # a child has let go of it meanwhile
                _give(path, account)
    return store


def account_of(root: Path) -> Account | None:
    """As whom a child works in a store: its owner, where we are root and that is somebody else; None: as we are."""
    status = root.stat()
    if os.geteuid() != 0 or status.st_uid == 0:
        return None
    return Account(status.st_uid, status.st_gid)


def hand_over(root: Path, *paths: Path) -> None:
    """Give files to whom the store in `root` belongs, for its children to read."""
    if (account := account_of(root)) is not None:
        for path in paths:
            _give(path, account)


def _give(path: Path, account: Account) -> None:
    """Not what a link leads to: its directory is that user's, whose children read what strangers made."""
    os.chown(path, account.uid, account.gid, follow_symlinks=False)
