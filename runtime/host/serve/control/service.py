"""ControlService, whole."""

from __future__ import annotations

from runtime.host.api.control_grpc import ControlServiceBase
from runtime.host.serve.control.context import Context
from runtime.host.serve.control.events import EventMethods
from runtime.host.serve.control.host import HostMethods
from runtime.host.serve.control.images import ImageMethods
from runtime.host.serve.control.networks import NetworkMethods
from runtime.host.serve.control.sessions import SessionMethods
from runtime.host.serve.control.workloads import WorkloadMethods
from runtime.host.serve.control.zones import ZoneMethods


class ControlService(
    HostMethods,
    NetworkMethods,
    ImageMethods,
    ZoneMethods,
    WorkloadMethods,
    SessionMethods,
    EventMethods,
    ControlServiceBase,
):
    """See api/control.proto. Close its context when it is served no more."""

    def __init__(self, context: Context) -> None:
        self._context = context
