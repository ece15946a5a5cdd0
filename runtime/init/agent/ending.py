"""A stream that ends with a container."""

from runtime.init.agent.container import Container
from runtime.init.agent.stream import Handler, Stream

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable


class Ending(Handler):
    """Gives its result when the container ends; one that is over before leaves nothing with it."""

    def __init__(self, stream: Stream, container: Container, result: "Callable[[], dict[str, object]]") -> None:
        self._stream, self._container, self._result = stream, container, result
        container.ended.append(self._ended)

    def closed(self) -> None:
        """Nobody waits any more."""
        if self._ended in self._container.ended:
            self._container.ended.remove(self._ended)

    def _ended(self) -> None:
        self._stream.succeed(self._result())
