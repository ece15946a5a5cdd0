"""How a scripted zoned says no: zoned's kinds of fault, and the status each becomes."""

from __future__ import annotations

import json
from typing import Any

from grpclib.const import Status

from pipeline.errors import SentenceError
from runtime.errors import RuntimeFault


class UnknownZone(RuntimeFault):
    """As zoned's own."""


class Refused(RuntimeFault):
    """Anything else zoned says no to."""


class WrongState(RuntimeFault):
    """As zoned's own."""


class AgentRefused(RuntimeFault):
    """As zoned's own, of what the zone's agent says no to."""


async def _refuse(stream: Any, error: SentenceError) -> None:
    names = ("subject", "expected", "got", "hint", "temporary")
    body = {name: getattr(error, name) for name in names} | {"kind": type(error).__name__}
    status = Status.NOT_FOUND if isinstance(error, UnknownZone) else Status.FAILED_PRECONDITION
    await stream.send_trailing_metadata(
        status=status, status_message=str(error), metadata={"zonewright-error-bin": json.dumps(body).encode()}
    )


def method(work: Any) -> Any:
    """A servicer's method: notes the request, and turns a sentence into a status."""

    async def run(self: Any, stream: Any) -> None:
        request = await stream.recv_message()
        self.fake.calls.append((work.__name__, request))
        self.fake.on_call(work.__name__)
        self.fake.called.set()
        self.fake.called.clear()
        try:
            reply = await work(self, stream, request)
        except SentenceError as error:
            await _refuse(stream, error)
            return
        if reply is not None:
            await stream.send_message(reply)

    return run
