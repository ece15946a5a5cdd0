"""An OCI runtime's commands over `styrolite --bundle`, for programs that drive one: create, start, state, kill, delete.

    OCI_STYROLITE=PROGRAM OCI_STATE=DIRECTORY RUNTIME=…/ociruntime.py default.t

`create` starts a process that waits, with the standard streams that the container will have; `start` lets it go on.
Its pid is told as the container's, and a bundle is looked at when it is started: what a program checks of these from
outside is not styrolite's. What styrolite says of a failure is kept in errors.log of the directory.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

GO, CODE, STARTED, KNOWN = "go", "code", "started", "known"
SETTLE_S = 5.0
# In a mount namespace of its own the one cgroup tree styrolite knows can be v2's, whatever this machine has.
INSIDE = 'mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec "$@"'


def main(words: list[str]) -> None:
    """One command."""
    verb, options, rest = words[0], {}, []
    remaining = iter(words[1:])
    for word in remaining:
        if word in ("--bundle", "--pid-file"):
            options[word] = next(remaining)
        elif word != "--all":
            rest.append(word)
    commands = {"create": create, "start": start, "state": state, "kill": kill, "delete": delete}
    if verb not in commands or not rest:
        raise SystemExit(f"{verb}: expected one of {', '.join(commands)}, and a name")
    commands[verb](Path(os.environ["OCI_STATE"]) / rest[0], options)


def create(home: Path, options: dict[str, str]) -> None:
    """A process that waits."""
    bundle = Path(options.get("--bundle", ".")).resolve()
    home.mkdir()
    os.mkfifo(home / GO)
    pid = os.fork()
    if not pid:
        _wait_and_run(home, bundle)
    (home / KNOWN).write_text(json.dumps({"bundle": str(bundle), "pid": pid}))
    if "--pid-file" in options:
        Path(options["--pid-file"]).write_text(str(pid))


def _wait_and_run(home: Path, bundle: Path) -> None:
    os.setsid()
    (home / GO).read_text()
    (home / STARTED).touch()
    program = [os.environ["OCI_STYROLITE"], "--bundle", str(bundle), "--id", home.name[:20]]
    argv = ["unshare", "--mount", "sh", "-c", INSIDE, "sh", *program]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with open(home.parent / "errors.log", "a") as file:
        file.write(done.stderr)
    (home / CODE).write_text(str(done.returncode))
    os._exit(0)


def start(home: Path, options: dict[str, str]) -> None:
    """Let it go on; returns once it does."""
    (home / GO).write_text("go")
    end = time.monotonic() + SETTLE_S
    while not (home / STARTED).exists() and time.monotonic() < end:
        time.sleep(0.01)


def state(home: Path, options: dict[str, str]) -> None:
    """Print it, as the runtime specification has it."""
    known = json.loads((home / KNOWN).read_text())
    config = json.loads(Path(known["bundle"], "config.json").read_text())
    status = "stopped" if (home / CODE).exists() else "running" if (home / STARTED).exists() else "created"
    told = {"ociVersion": config["ociVersion"], "id": home.name, "status": status, "annotations": {}}
    print(json.dumps(told | known | {"annotations": config.get("annotations") or {}}))


def kill(home: Path, options: dict[str, str]) -> None:
    """End it, whatever the signal."""
    os.killpg(json.loads((home / KNOWN).read_text())["pid"], signal.SIGKILL)
    (home / CODE).write_text("137")


def delete(home: Path, options: dict[str, str]) -> None:
    """Forget it."""
    shutil.rmtree(home)


if __name__ == "__main__":
    main(sys.argv[1:])
