"""The scripted zoned's networks: what there is, what passes, and a capture of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from runtime.host.api import host_pb2 as pb
from support.fakerefusals import method

if TYPE_CHECKING:
    from support.fakezoned import FakeZoned


class Networks:
    """The service's methods of networks, over a FakeZoned's script."""

    fake: FakeZoned

    @method
    async def ListNetworks(self, stream: Any, request: Any) -> Any:
        return pb.ListNetworksReply(networks=self.fake.networks)

    @method
    async def CreateNetwork(self, stream: Any, request: Any) -> Any:
        made = pb.NetworkInfo(name=request.name, ipv4="10.75.9.0/24", shared=True)
        self.fake.networks.append(made)
        return made

    @method
    async def RemoveNetwork(self, stream: Any, request: Any) -> Any:
        self.fake.networks = [network for network in self.fake.networks if network.name != request.name]
        return pb.RemoveNetworkReply()

    @method
    async def ListFlows(self, stream: Any, request: Any) -> Any:
        wanted = {self.fake.find(request.zone).name} if request.zone else set(self.fake.zones)
        return pb.ListFlowsReply(zones=[zone for zone in self.fake.flows if zone.zone in wanted])

    @method
    async def CaptureNetwork(self, stream: Any, request: Any) -> Any:
        self.fake.find(request.zone)
        for piece in self.fake.capture:
            await stream.send_message(piece)
        if self.fake.capture_goes_on:
            await asyncio.Event().wait()
