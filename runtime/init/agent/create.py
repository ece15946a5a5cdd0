"""The `create` method: a container with a root of its own, whose disk may still be on its way into the zone."""

import time

from runtime.init import devices, mounts
from runtime.init.agent import params
from runtime.init.agent.container import Container
from runtime.init.agent.core import Agent
from runtime.init.agent.errors import Refused
from runtime.init.agent.params import Params
from runtime.init.agent.stream import Handler, Stream
from runtime.init.boot import network_of, scratch_of
from runtime.init.container import steps
from runtime.init.container.spec import check_id

_LOOK_S = 0.02
_DEVICE_S = 30.0
_OWN = ("stdin_open", "healthcheck", "device_timeout_s")


class Creation(Handler):
    """Waits for the disk, mounts the root, gives the result. Until then the name is taken.

    spec:  of the container runtime, whose root has a device; and stdin_open, healthcheck (health.Health) and
           device_timeout_s.
    """

    def __init__(self, agent: Agent, stream: Stream, name: str, spec: Params) -> None:
        self._agent, self._stream, self._name = agent, stream, name
        _check_name(agent, name)
        root = params.mapping(spec, "root")
        self._device = params.text(root, "device")
        if "/" in self._device or not self._device:
            raise Refused("params", f"root.device: expected a name such as xvde, got {self._device!r:.60}")
        self._overlay_size_mib = params.number(root, "overlay_size_mib", 0)
        self._hostname = params.text(spec, "hostname", str(agent.data["hostname"]))
        self._end = time.monotonic() + params.seconds(spec, "device_timeout_s", _DEVICE_S)
        self._done = False
        stdin_open, healthcheck = params.flag(spec, "stdin_open"), spec.get("healthcheck")
        spec = {key: value for key, value in spec.items() if key not in _OWN}
        steps.plan(spec)  # what is wrong with it is said now
        self._container = Container(agent, name, spec, stdin_open=stdin_open, healthcheck=healthcheck)
        agent.containers[name] = self._container
        stream.after(0.0, self._look)

    def closed(self) -> None:
        """The host cancelled, or it failed: the name is free again."""
        if not self._done and self._is_there():
            del self._agent.containers[self._name]

    def _is_there(self) -> bool:
        """Has nobody deleted it meanwhile?"""
        return self._agent.containers.get(self._name) is self._container

    def _look(self) -> None:
        if not self._is_there():
            raise Refused("state", f"container {self._name}: it was deleted before its disk was there")
        if devices.exists(f"/dev/{self._device}"):
            self._mount()
        elif time.monotonic() >= self._end:
            raise Refused("device", f"device {self._device} of container {self._name} did not appear in time")
        else:
            self._stream.after(_LOOK_S, self._look)

    def _mount(self) -> None:
        mounts.image_root(
            self._name,
            self._device,
            overlay_size_mib=self._overlay_size_mib,
            hostname=self._hostname,
            network=network_of(self._agent.data),
            scratch=scratch_of(self._agent.data),
            further=True,
        )
        self._done = True
        self._stream.succeed({})


def _check_name(agent: Agent, name: str) -> None:
    check_id(name)
    if name in agent.containers:
        raise Refused("state", f"container {name}: expected a new id, got one in use")
