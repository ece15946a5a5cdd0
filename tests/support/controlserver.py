"""ControlService on a unix socket, on an event loop of its own, and a plain gRPC client of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from grpclib.server import Server

from pipeline.store import Store
from runtime.boot.doors import Hypervisor
from runtime.host.api import control_pb2, host_pb2
from runtime.host.images.platform import PlatformFile
from runtime.host.images.tasks import ImageTasks
from runtime.host.serve.control.context import Context
from runtime.host.serve.control.service import ControlService
from runtime.host.serve.host import HostService
from support.fakemanager import FakeManager
from support.grpcclient import Stub


class ControlServer:
    """stub: the client; host: of the service Host; manager, store, platform: what stands behind the service."""

    def __init__(self, directory: Path, hypervisor: Hypervisor | None = None) -> None:
        self.store = Store(directory / "store")
        self.platform = PlatformFile(directory / "platform.json", self.store)
        self.manager = FakeManager()
        self.socket = directory / "zoned.sock"
        self._hypervisor = hypervisor
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.run(self._serve())
        self._channel = grpc.insecure_channel(f"unix:{self.socket}")
        self.stub: Any = Stub(self._channel, control_pb2.DESCRIPTOR.services_by_name["ControlService"])
        self.host: Any = Stub(self._channel, host_pb2.DESCRIPTOR.services_by_name["Host"])

    async def _serve(self) -> None:
        self.context = Context(self.manager, self.store, ImageTasks(self.store.root), self.platform, self._hypervisor)
        host = HostService(self.manager, platform=self.platform)  # type: ignore[arg-type]
        self._server = Server([ControlService(self.context), host])
        await self._server.start(path=str(self.socket))

    async def _end(self) -> None:
        self._server.close()
        await self._server.wait_closed()
        await self.context.close()

    def run(self, work: Any) -> Any:
        """Run a coroutine where the service runs."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function where the service runs."""

        async def work() -> Any:
            return function(*args)

        return self.run(work())

    def close(self) -> None:
        self._channel.close()
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
