"""Read /zone/launch.json, the last segment of the initrd: what only the host knows at launch."""

import posix

from runtime.init import jsonread
from runtime.init.failure import BootFailure, os_failure

PATH = "/zone/launch.json"
_MAX_BYTES = 4 << 20
# key -> (type, default); the dataclass Launch of pipeline.bundle.model is where these are said
_KEYS: dict[str, tuple[type, object]] = {
    "hostname": (str, ""),
    "seed": (str, ""),
    "modules": (list, []),
    "process": (dict, None),
    "root": (str, "xvda"),
    "addons": (str, ""),
    "late_modules": (list, []),
    "readonly_root": (bool, False),
    "overlay_size_mib": (int, 0),
    "network": (dict, None),
    "disks": (list, []),
    "sysctls": (dict, {}),
    "scratch": (list, []),
    "extra": (dict, {}),
}
_PROCESS: dict[str, tuple[type, object]] = {
    "argv": (list, []),
    "env": (list, []),
    "cwd": (str, "/"),
    "uid": (int, 0),
    "gid": (int, 0),
    "groups": (list, []),
    "tty": (bool, False),
    "stop_signal": (int, 15),
    "stop_timeout_s": (int, 10),
}


def load(path: str = PATH) -> dict[str, object]:
    """The launch data with defaults filled in. Raises BootFailure "launch"."""
    try:
        data = read_file(path)
    except OSError as error:
        raise os_failure("launch", f"reading the launch data {path}", error) from None
    return check(data)


def check(data: bytes) -> dict[str, object]:
    """Parse and check; raises BootFailure "launch" naming the key. No process: a zone that waits for the host."""
    try:
        document = jsonread.parse(data)
    except (ValueError, RecursionError) as error:
        raise BootFailure("launch", f"the launch data are no JSON: {error}") from None
    launch = _fill(document, _KEYS, "")
    if launch["process"] is not None:
        launch["process"] = process_of(launch["process"], "process.")
    return launch


def process_of(document: object, where: str) -> dict[str, object]:
    """A process with its defaults filled in; raises BootFailure "launch" naming the key below `where`."""
    return _fill(document, _PROCESS, where)


def _fill(document: object, keys: dict[str, tuple[type, object]], where: str) -> dict[str, object]:
    if not isinstance(document, dict):
        raise BootFailure("launch", f"launch data: {where or 'the document'} is no object")
    filled = dict(document)
    for key, (kind, default) in keys.items():
        value = filled.setdefault(key, default)
        wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
        if wrong and value is not default:
            raise BootFailure("launch", f"launch data: key {where}{key}: expected {kind.__name__}, got {value!r:.80}")
    return filled


def read_file(path: str, limit_bytes: int = _MAX_BYTES) -> bytes:
    """The contents of a file. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        data = bytearray()
        while len(data) < limit_bytes and (chunk := posix.read(fd, 65536)):
            data += chunk
        return bytes(data)
    finally:
        posix.close(fd)
