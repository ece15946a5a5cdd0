"""Limits of a container's processes, each with its number."""

from runtime.init.failure import ContainerFailure

RLIM_INFINITY = (1 << 64) - 1
# include/uapi/asm-generic/resource.h: the position is the number
# fmt: off
RLIMITS = (
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending",
    "msgqueue", "nice", "rtprio", "rttime",
)
# fmt: on


def check(value: object) -> dict[int, tuple[int, int]]:
    """Number of the resource -> (soft, hard), from {"nofile": [1024, 4096]}. What is not named is inherited."""
    if not isinstance(value, dict):
        raise _bad("process.rlimits", "an object", value)
    found = {}
    for key, pair in value.items():
        name = str(key).lower().removeprefix("rlimit_")
        if name not in RLIMITS:
            raise _bad("process.rlimits", f"only the keys {', '.join(RLIMITS)}", key)
        numbers = (
            [RLIM_INFINITY if number == "infinity" else number for number in pair] if isinstance(pair, list) else []
        )
        good = all(type(number) is int and 0 <= number <= RLIM_INFINITY for number in numbers)
        if len(numbers) != 2 or not good or numbers[0] > numbers[1]:
            raise _bad(f"process.rlimits.{key}", "[soft, hard], each a number or infinity, soft not above hard", pair)
        found[RLIMITS.index(name)] = (numbers[0], numbers[1])
    return found


def _bad(key: str, expected: str, got: object) -> ContainerFailure:
    return ContainerFailure("spec", f"container spec: key {key}: expected {expected}, got {got!r:.80}")
