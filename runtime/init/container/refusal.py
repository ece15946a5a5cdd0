"""Why a file could not be executed, in one sentence."""

import errno
import posix

from runtime.init.failure import ContainerFailure, why
from runtime.init.launch import read_file

_MISSING = (errno.ENOENT, errno.ENOTDIR)


def refusal(path: str, error: OSError) -> ContainerFailure | None:
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
        return ContainerFailure("command-127", f"command {path!r} is there, but {_interpreter(path)} is not")
    if error.errno == errno.ENOEXEC:
        sentence = f"command {path!r} is neither a program for this machine nor a #! script"
        return ContainerFailure("command-126", sentence)
    return ContainerFailure("command-126", f"command {path!r} cannot be executed: {why(error)}")


def _interpreter(path: str) -> str:
    """What a program needs to start, for the sentence: the word behind #!, or the loader of an ELF file."""
    try:
        head = read_file(path, 4096)
    except OSError:
        return "its interpreter"
    if head[:2] == b"#!":
        words = head[2:].split(b"\n")[0].split()
        return f"its interpreter {words[0].decode('utf-8', 'replace')}" if words else "its interpreter"
    return "the loader it names"
