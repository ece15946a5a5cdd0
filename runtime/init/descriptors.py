"""How many descriptors the agent may have open: as many as its streams take. What it starts has what it had itself."""

from runtime.init.container import abi, calls

WANTED = 1 << 16  # of link.MAX_STREAMS, an exec takes three to eight, and its start two more
_given: list[tuple[int, int]] = []


def allow() -> None:
    """Raise the caller's limit, as far as it may. Raises OSError."""
    soft, hard = calls.limits_of(abi.RLIMIT_NOFILE)
    _given[:] = [(soft, hard)]
    try:
        calls.set_limit(abi.RLIMIT_NOFILE, WANTED, max(hard, WANTED))
    except PermissionError:  # without CAP_SYS_RESOURCE, as where a box is run in another container
        calls.set_limit(abi.RLIMIT_NOFILE, min(hard, WANTED), hard)


def give_back() -> None:
    """In what was forked to become another program, behind its last descriptor that is not its own. Raises OSError."""
    for soft, hard in _given:
        calls.set_limit(abi.RLIMIT_NOFILE, soft, hard)
