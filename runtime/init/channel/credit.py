"""Who may send how much on a stream: one budget per descriptor and direction."""

WINDOW_BYTES = 65536  # each (stream, fd) starts with so many, in each direction
GIVE_BYTES = WINDOW_BYTES // 4  # consumed bytes are given back in pieces of at least this, not one frame for each
MAX_BYTES = 1 << 30  # nobody means more; a peer that gives for ever must not make a number grow for ever


class CreditError(ValueError):
    """The other end sent more than it may, or gave more than anybody means; ends its stream."""


class Credits:
    """The budgets of one stream at one of its ends. fd is 0, 1 or 2, which the parser has seen to."""

    def __init__(self) -> None:
        self._may_send = [WINDOW_BYTES] * 3
        self._may_receive = [WINDOW_BYTES] * 3
        self._owed = [0] * 3

    def may_send(self, fd: int) -> int:
        """How many bytes may go out now."""
        return self._may_send[fd]

    def sent(self, fd: int, count: int) -> None:
        """Count bytes that went out. Raises CreditError where they were too many: a fault of ours."""
        if count > self._may_send[fd]:
            raise CreditError(f"descriptor {fd}: expected at most {self._may_send[fd]} bytes, got {count}")
        self._may_send[fd] -= count

    def given(self, fd: int, count: int) -> None:
        """Count a CREDIT that came. Raises CreditError."""
        if self._may_send[fd] + count > MAX_BYTES:
            raise CreditError(f"credit of descriptor {fd}: expected at most {MAX_BYTES} in all, got {count} more")
        self._may_send[fd] += count

    def received(self, fd: int, count: int) -> None:
        """Count bytes that came. Raises CreditError."""
        if count > self._may_receive[fd]:
            raise CreditError(f"descriptor {fd}: expected at most {self._may_receive[fd]} bytes, got {count}")
        self._may_receive[fd] -= count

    def consumed(self, fd: int, count: int, *, at_once: bool = False) -> int:
        """Count bytes nobody has to keep any more; how much credit to give for them now, 0 for later.

        at_once: give for all of them, as where credit acknowledges.
        """
        self._owed[fd] += count
        give = self._owed[fd]
        if give < GIVE_BYTES and not at_once:
            return 0
        self._owed[fd] = 0
        self._may_receive[fd] += give
        return give
