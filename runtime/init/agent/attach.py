"""The `stdin` stream: what the host types goes to a container's standard input, which outlives the stream."""

from runtime.init.agent import stdio
from runtime.init.agent.container import Container
from runtime.init.agent.ending import Ending
from runtime.init.agent.errors import Refused
from runtime.init.agent.stream import Stream


class Stdin(Ending):
    """Stays open until the container ends or the host lets go."""

    def __init__(self, stream: Stream, container: Container) -> None:
        self._stdio = container.stdio
        if not container.running:
            raise Refused("state", f"container {container.name}: expected it to run, got {container.state}")
        if self._stdio is None or self._stdio.stdin is None:
            raise Refused("state", f"container {container.name}: expected one with an open stdin, got /dev/null")
        super().__init__(stream, container, dict)

    def data(self, fd: int, payload: bytes) -> None:
        """Input; what the container does not take any more is dropped."""
        if fd != 0 or self._stdio is None or self._stdio.stdin is None:
            raise Refused("protocol", f"stdin: expected bytes of descriptor 0, got some of {fd}")
        if self._stdio.stdin.open:
            self._stdio.stdin.feed(payload, lambda count: self._stream.consumed(0, count))
        else:
            self._stream.consumed(0, len(payload))

    def eof(self, fd: int) -> None:
        """No more input, ever: the container reads the end."""
        if self._stdio is not None and self._stdio.stdin is not None and self._stdio.stdin.open:
            self._stdio.stdin.finish()

    def event(self, value: dict[str, object]) -> None:
        """{"resize": [rows, columns]}."""
        if "resize" in value and self._stdio is not None:
            self._stdio.resize(*stdio.size_of(value["resize"]))
