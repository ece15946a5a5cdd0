"""Find and execute a command, and say in one sentence why it cannot be executed."""

import errno
import posix

from runtime.init.failure import ContainerFailure, why
from runtime.init.launch import read_file

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MISSING = (errno.ENOENT, errno.ENOTDIR)


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
            refused = refused or _refusal(path, error)
        except ValueError as error:  # a NUL in a word
            raise ContainerFailure("command-126", f"command {argv[0]!r}: {error}") from None
    if refused is None:
        where = "does not exist" if "/" in argv[0] else f"was not found in PATH {env['PATH']}"
        refused = ContainerFailure("command-127", f"command {argv[0]!r} {where}")
    raise refused


def _refusal(path: str, error: OSError) -> ContainerFailure | None:
    """Why this candidate did not start; None when it just is not there."""
    try:
        mode = posix.stat(path).st_mode
    except OSError as missing:
        if missing.errno in _MISSING:
            return None
        return ContainerFailure("command-126", f"command {path!r}: {why(missing)}")
    if mode & 0o170000 == 0o040000:
        return ContainerFailure("command-126", f"command {path!r} is a directory")
    if error.errno in _MISSING:
        return ContainerFailure("command-127", f"command {path!r} is there, but {interpreter(path)} is not")
    if error.errno == errno.ENOEXEC:
        sentence = f"command {path!r} is neither a program for this machine nor a #! script"
        return ContainerFailure("command-126", sentence)
    return ContainerFailure("command-126", f"command {path!r} cannot be executed: {why(error)}")


def interpreter(path: str) -> str:
    """What a program needs to start, for the sentence: the word behind #!, or the loader of an ELF file."""
    try:
        head = read_file(path, 4096)
    except OSError:
        return "its interpreter"
    if head[:2] == b"#!":
        words = head[2:].split(b"\n")[0].split()
        return f"its interpreter {words[0].decode('utf-8', 'replace')}" if words else "its interpreter"
    return "the loader it names"
