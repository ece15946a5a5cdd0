"""The methods of the agent channel: a name, and what it does with its parameters."""

import time

from runtime.init import abi
from runtime.init.agent import params
from runtime.init.agent.container import Container
from runtime.init.agent.core import MAIN, Agent
from runtime.init.agent.ending import Ending
from runtime.init.agent.errors import Refused
from runtime.init.agent.params import Params
from runtime.init.agent.stream import Stream

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

_FROZEN_TRIES, _FROZEN_STEP_S = 200, 0.01
_SEED_BYTES = 64
_CLEAR_TRIES, _CLEAR_STEP_S = 500, 0.02


def call(agent: Agent, stream: Stream, given: Params) -> None:
    """Carry out the method of a stream. What it raises is the stream's result."""
    method = METHODS.get(stream.method)
    if method is None:
        raise Refused("method", f"method {stream.method!r:.60}: expected one of {sorted(METHODS)}")
    if _is_refused(agent, stream.method):
        raise Refused("policy", f"method {stream.method}: expected one that the zone's spec does not refuse")
    result = method(agent, stream, given)
    if result is not None:
        stream.succeed(result)


def _is_refused(agent: Agent, method: str) -> bool:
    """By the launch data's extra.refused, which no host changes later. What is no list of names refuses everything."""
    extra = agent.data.get("extra")
    listed = extra.get("refused", []) if isinstance(extra, dict) else []
    return not isinstance(listed, list) or method in listed


def _ping(agent: Agent, stream: Stream, given: Params) -> Params:
    return {"now": time.monotonic()}


def _info(agent: Agent, stream: Stream, given: Params) -> Params:
    from runtime.init.agent import system

    return system.info() | {"boot": {name: round(at, 3) for name, at in agent.timings}}


def _list(agent: Agent, stream: Stream, given: Params) -> Params:
    return {"containers": [container.describe() for container in agent.containers.values()]}


def _create(agent: Agent, stream: Stream, given: Params) -> None:
    from runtime.init.agent.create import Creation

    stream.handler = Creation(agent, stream, params.text(given, "id"), params.mapping(given, "spec"))


def _start(agent: Agent, stream: Stream, given: Params) -> None:
    def start(container: Container) -> None:
        container.start(lambda: stream.succeed({"pid": container.pid}), stream.refuse)

    _once_clear(agent, stream, given, start)


def _kill(agent: Agent, stream: Stream, given: Params) -> Params:
    number = params.number(given, "signal", abi.SIGTERM, least=1, most=64)
    agent.container(given.get("id")).signal(number, everyone=params.flag(given, "all"))
    return {}


def _stop(agent: Agent, stream: Stream, given: Params) -> Params | None:
    container = agent.container(given.get("id"))
    if not container.active:
        return {"exit": container.exit}
    number = params.number(given, "signal", least=1, most=64) if "signal" in given else None
    timeout_s = params.seconds(given, "timeout_s", 0.0) if "timeout_s" in given else None
    stream.handler = Ending(stream, container, lambda: {"exit": container.exit})
    container.stop(number, timeout_s)
    return None


def _delete(agent: Agent, stream: Stream, given: Params) -> None:
    def delete(container: Container) -> None:
        container.delete()
        del agent.containers[container.name]
        stream.succeed({})

    _once_clear(agent, stream, given, delete)


def _once_clear(agent: Agent, stream: Stream, given: Params, action: "Callable[[Container], object]") -> None:
    """Do it to a container once no process of its last run is left, or say that one is."""
    tries = _CLEAR_TRIES

    def look() -> None:
        nonlocal tries
        tries -= 1
        container = agent.container(given.get("id"))
        if container.clear() or not tries:
            action(container)
        else:
            stream.after(_CLEAR_STEP_S, look)

    look()


def _update(agent: Agent, stream: Stream, given: Params) -> Params:
    agent.container(given.get("id")).limit(params.mapping(given, "limits"))
    return {}


def _pause(agent: Agent, stream: Stream, given: Params) -> None:
    _freeze(agent, stream, agent.container(given.get("id")), frozen=True)


def _resume(agent: Agent, stream: Stream, given: Params) -> None:
    _freeze(agent, stream, agent.container(given.get("id")), frozen=False)


def _freeze(agent: Agent, stream: Stream, container: Container, *, frozen: bool) -> None:
    from runtime.init.agent import cgroup

    container.freeze(frozen=frozen)
    tries = _FROZEN_TRIES

    def look() -> None:
        nonlocal tries
        tries -= 1
        if not container.running or cgroup.is_frozen(container.name) == frozen:
            stream.succeed({"state": container.state})
        elif not tries:
            stream.fail("cgroup", f"container {container.name}: the kernel has not done it yet")
        else:
            stream.after(_FROZEN_STEP_S, look)

    look()


def _logs(agent: Agent, stream: Stream, given: Params) -> None:
    from runtime.init.agent.logs import Logs

    stream.handler = Logs(stream, agent.container(given.get("container")), params.mapping(given, "from", {}))


def _stdin(agent: Agent, stream: Stream, given: Params) -> None:
    from runtime.init.agent.attach import Stdin

    stream.handler = Stdin(stream, agent.container(given.get("id")))


def _exec(agent: Agent, stream: Stream, given: Params) -> None:
    from runtime.init.agent.execs import Exec

    named = given.get("container")
    Exec(agent, stream, agent.container(named) if named else None, params.mapping(given, "process"))


def _metrics(agent: Agent, stream: Stream, given: Params) -> Params | None:
    from runtime.init.agent import metrics

    if "interval_s" in given:
        from runtime.init.agent.samples import Samples

        stream.handler = Samples(agent, stream, given)
        return None
    return metrics.collect(list(agent.containers))


def _processes(agent: Agent, stream: Stream, given: Params) -> Params:
    from runtime.init.agent import metrics

    named = given.get("container")
    return metrics.processes(agent.container(named).name if named else None)


def _stat(agent: Agent, stream: Stream, given: Params) -> Params:
    from runtime.init.agent import copy

    return copy.stat(_root_of(agent, given), params.text(given, "path"))


def _copy_in(agent: Agent, stream: Stream, given: Params) -> None:
    from runtime.init.agent import copy

    copy.receive(stream, _root_of(agent, given), params.text(given, "path"))


def _copy_out(agent: Agent, stream: Stream, given: Params) -> None:
    from runtime.init.agent import copy

    copy.send(stream, _root_of(agent, given), params.text(given, "path"))


def _root_of(agent: Agent, given: Params) -> int:
    return agent.container(given.get("container", MAIN)).open_root()


def _cpus(agent: Agent, stream: Stream, given: Params) -> None:
    from runtime.init.agent import system

    system.set_cpus(agent.loop, stream, params.number(given, "online", least=1, most=4096))


def _memory(agent: Agent, stream: Stream, given: Params) -> Params:
    from runtime.init.agent import system

    return system.memory()


def _sysctl(agent: Agent, stream: Stream, given: Params) -> Params:
    from runtime.init.agent import system

    value = given.get("value")
    return {"value": system.sysctl(params.text(given, "key"), None if value is None else str(value))}


def _network(agent: Agent, stream: Stream, given: Params) -> Params:
    from runtime.init.agent import networking

    return networking.change(given)


def _dial(agent: Agent, stream: Stream, given: Params) -> None:
    from runtime.init.agent.dial import Dial

    address, port = params.text(given, "address", "127.0.0.1"), params.number(given, "port", least=1, most=65535)
    stream.handler = Dial(agent.loop, stream, address, port)


def _listening(agent: Agent, stream: Stream, given: Params) -> Params:
    from runtime.init.agent import ports

    return {"open": ports.is_open(ports.listening("udp"), params.number(given, "port", least=1, most=65535))}


def _shutdown(agent: Agent, stream: Stream, given: Params) -> Params:
    mode = params.text(given, "mode", "stop")
    if mode == "stop":
        agent.stop(
            params.number(given, "signal", abi.SIGTERM, least=1, most=64), params.seconds(given, "timeout_s", 10.0)
        )
    elif mode == "now":
        agent.stop(abi.SIGKILL, 0.0)
    else:
        raise Refused("params", f"mode: expected stop or now, got {mode!r:.60}")
    return {}


def _clock(agent: Agent, stream: Stream, given: Params) -> Params:
    if "unix_ns" in given:
        time.clock_settime_ns(time.CLOCK_REALTIME, params.number(given, "unix_ns"))
    return {"unix_ns": time.time_ns()}


def _reseed(agent: Agent, stream: Stream, given: Params) -> Params:
    from runtime.init import kernel

    text = params.text(given, "seed")
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if not 0 < len(seed) <= _SEED_BYTES:
        raise Refused("params", f"seed: expected 1 to {_SEED_BYTES} bytes in hex digits, got {len(text)} characters")
    kernel.credit_entropy(seed)
    return {}


METHODS = {
    "ping": _ping,
    "network": _network,
    "info": _info,
    "list": _list,
    "create": _create,
    "start": _start,
    "kill": _kill,
    "stop": _stop,
    "delete": _delete,
    "update": _update,
    "pause": _pause,
    "resume": _resume,
    "logs": _logs,
    "stdin": _stdin,
    "exec": _exec,
    "metrics": _metrics,
    "processes": _processes,
    "stat": _stat,
    "copy_in": _copy_in,
    "copy_out": _copy_out,
    "cpus": _cpus,
    "memory": _memory,
    "sysctl": _sysctl,
    "dial": _dial,
    "listening": _listening,
    "shutdown": _shutdown,
    "clock": _clock,
    "reseed": _reseed,
}
