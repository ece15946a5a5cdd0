"""Find and execute a command, and say in one sentence why it cannot be executed."""

import posix

from runtime.init.failure import ContainerFailure

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(entries: list[object]) -> dict[str, str]:
    """The image's Env as a mapping, with the usual PATH where it names none."""
    found = {}
    for entry in entries:
        key, equals, value = str(entry).partition("=")
        if key and equals:
            found[key] = value
    found.setdefault("PATH", DEFAULT_PATH)
    return found


def candidates(command: str, path: str) -> list[str]:
    """Where a command may be, in the order to try; a command with a slash is taken as it is."""
    if "/" in command:
        return [command]
    return [f"{directory or '.'}/{command}" for directory in path.split(":")]


def execute(argv: list[str], env: dict[str, str]) -> None:
    """exec the first candidate that can be; comes back only by raising ContainerFailure with the best reason found."""
    refused: ContainerFailure | None = None
    for path in candidates(argv[0], env["PATH"]):
        try:
            posix.execve(path, argv, env)
        except OSError as error:
            from runtime.init.container import refusal  # here, as the first one that is there starts

            refused = refused or refusal.refusal(path, error)
        except ValueError as error:  # a NUL in a word
            raise ContainerFailure("command-126", f"command {argv[0]!r}: {error}") from None
    if refused is None:
        where = "does not exist" if "/" in argv[0] else f"was not found in PATH {env['PATH']}"
        refused = ContainerFailure("command-127", f"command {argv[0]!r} {where}")
    raise refused
