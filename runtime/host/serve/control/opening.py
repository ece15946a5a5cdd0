"""ControlService as zoned serves it: its store, its children, its platform, below zoned's state directory."""

from __future__ import annotations

from pathlib import Path

from runtime.boot.doors import Hypervisor
from runtime.host.daemon.manager import Manager
from runtime.host.images.account import account_of, open_store
from runtime.host.images.platform import PlatformFile
from runtime.host.images.tasks import ImageTasks
from runtime.host.serve.control.context import Context

STORE, PLATFORM = "store", "platform.json"
PASSABLE, PRIVATE = 0o711, 0o600


def open_context(manager: Manager, hypervisor: Hypervisor, state: Path) -> Context:
    """What the service stands on. Close it after the service. Raises StoreUnfit.

    Effects: where the store belongs to a user of its own, that user may pass through `state`, and its files are then
             root's alone.
    """
    store = open_store(state / STORE)
    if account_of(store.root) is not None:
        for path in state.iterdir():
            if path.is_file():
                path.chmod(PRIVATE)
        state.chmod(PASSABLE)
    return Context(manager, store, ImageTasks(store.root), PlatformFile(state / PLATFORM, store), hypervisor)
