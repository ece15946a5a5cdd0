"""Root file systems from exactly the locked .debs, by mmdebstrap, without the network and with or without root."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pipeline import tool
from pipeline.debian import PackageLock, fields_of
from pipeline.env import Env
from pipeline.errors import PipelineError
from pipeline.oci import Descriptor
from pipeline.progress import Bar

log = logging.getLogger(__name__)

TIMEOUT_S = 1800.0
SPARE_MIB = 64
GRACE_S = 3.0

# What no zone reads: left out while dpkg unpacks, so that it is never written. Copyright files stay.
DOCUMENTATION = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
)
KEPT = ("/usr/share/doc/*/copyright",)


class CannotUnshare(PipelineError):
    """A plain user's system does not let them be root in a user namespace."""


class DiskFull(PipelineError):
    """Too little room for what is about to be written."""


def version() -> str:
    """The version of mmdebstrap, for action keys; raises ToolMissing."""
    out = tool.run([tool.find("mmdebstrap", package="mmdebstrap"), "--version"], timeout_s=60).decode()
    return out.split()[-1]


def bootstrap(
    env: Env,
    lock: PackageLock,
    debs: Mapping[str, Descriptor],
    *,
    variant: str,
    include: Sequence[str],
    hooks: Sequence[tuple[str, str]] = (),
    excludes: Sequence[str] = DOCUMENTATION,
    out_tar: Path,
    title: str = "",
    stop: threading.Event | None = None,
) -> Path:
    """Write a root file system made of `debs` as a tar file.

    debs:     package name -> .deb in the store, from pipeline.fetch.debian.download; what apt may choose from.
    variant:  "essential" (Debian's essential set, then `include`), "custom" (only `include` and what that needs), or
              "extract" (the same, but unpacked only: no maintainer script runs).
    hooks:    ("setup" | "extract" | "essential" | "customize", shell command); "$1" is the root. Variant extract runs
              the first two only.
    excludes: dpkg path-exclude patterns; copyright files are kept.
    stop:     set by another thread, it ends the run as an interrupt would.
    Raises:   ToolFailed, ToolMissing, CannotUnshare, DiskFull.
    Effects:  out_tar appears whole or not at all. Root runs mmdebstrap in mode root, others in mode unshare.
    """
    partial = out_tar.with_name(f".{out_tar.name}.partial")
    if os.geteuid() != 0:
        check_unshare()
    with _workspace(env) as work:
        check_room(work, lock, debs)
        repository = _flat_repository(work / "repository", env, lock, debs)
        argv = [
            tool.find("mmdebstrap", package="mmdebstrap"),
            f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
            f"--variant={variant}",
            "--format=tar",
            f"--architectures={lock.architecture}",
            "--verbose",
            '--aptopt=APT::Sandbox::User "root"',
            '--aptopt=Acquire::Languages "none"',
            "--hook-directory=/usr/share/mmdebstrap/hooks/maybe-merged-usr",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in excludes),
            *(f"--dpkgopt=path-include={pattern}" for pattern in (KEPT if excludes else ())),
            *([f"--include={','.join(include)}"] if include else []),
            *(f"--{kind}-hook={command}" for kind, command in hooks),
            lock.suite,
            str(partial),
            f"deb [trusted=yes] copy://{repository} ./",
        ]
        environment = {
            "SOURCE_DATE_EPOCH": str(lock.epoch),
            "TMPDIR": str(work / "tmp"),
            "DEBIAN_FRONTEND": "noninteractive",
        }
        try:
            with env.progress.bar(title or f"root of {len(debs)} packages", total=2 * len(debs), unit="steps") as bar:
                _run(argv, environment, bar, stop or threading.Event())
            os.rename(partial, out_tar)
        finally:
            partial.unlink(missing_ok=True)
    return out_tar


def check_unshare() -> None:
    """Can this plain user run mmdebstrap? It needs user namespaces, and subordinate uids for the owners of files."""
    try:
        tool.run([tool.find("mmdebstrap", package="mmdebstrap"), "--unshare-helper", "true"], timeout_s=60)
    except tool.ToolFailed as error:
        raise CannotUnshare(
            "mmdebstrap",
            expected="user namespaces, newuidmap and a range in /etc/subuid and /etc/subgid for this user",
            got=error.got,
            hint="apt-get install uidmap; usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER; "
            "or run as root",
        ) from error


def check_room(directory: Path, lock: PackageLock, debs: Iterable[str]) -> None:
    """Is there room for the root that is unpacked in `directory`, and its tar? Raises DiskFull with the number."""
    sizes = (fields_of(lock.package(name).stanza).get("Installed-Size", "0") for name in debs)
    need_mib = 2 * sum(int(size) for size in sizes if size.isdigit()) // 1024 + SPARE_MIB
    free_mib = shutil.disk_usage(directory).free >> 20
    if free_mib < need_mib:
        raise DiskFull(f"disk of {directory.parent}", expected=f"{need_mib} MiB free", got=f"{free_mib} MiB")


@contextlib.contextmanager
def _workspace(env: Env) -> Iterator[Path]:
    """A directory that mmdebstrap's user can reach: in mode unshare that is a subordinate uid, not the caller.

    A plain user's store often lies below a home directory nobody else may enter, so /tmp it is for them.
    """
    if os.geteuid() == 0:
        with env.store.scratch() as path:
            (path / "tmp").mkdir()
            yield path
        return
    path = Path(tempfile.mkdtemp(prefix="zonewright."))
    try:
        path.chmod(0o755)
        (path / "tmp").mkdir()
        (path / "tmp").chmod(0o1777)
        yield path
    finally:
        if any((path / "tmp").iterdir()):  # an interrupted run's files belong to subordinate uids
            with contextlib.suppress(tool.ToolFailed):
                tool.run(["mmdebstrap", "--unshare-helper", "rm", "-rf", *(path / "tmp").iterdir()], timeout_s=120)
        shutil.rmtree(path, ignore_errors=True)


def _flat_repository(path: Path, env: Env, lock: PackageLock, debs: Mapping[str, Descriptor]) -> Path:
    """A repository of one directory: the .debs, a Packages file of their signed paragraphs, a Release file.

    apt hashes every .deb against its paragraph once more; mmdebstrap finds the suite by the Release file's names.
    """
    path.mkdir(mode=0o755)
    paragraphs: list[str] = []
    for name in sorted(debs):
        package = lock.package(name)
        # No version in it: apt would decode an escaped epoch (`1%3a2`) once too often or too seldom.
        file_name = f"{package.name}_{package.architecture}.deb"
        _place(env.store.checked(debs[name].digest), path / file_name)
        paragraphs.append(re.sub(r"^Filename:.*$", f"Filename: ./{file_name}", package.stanza, flags=re.M))
    packages = "\n".join(paragraphs).encode()
    (path / "Packages").write_bytes(packages)
    (path / "Release").write_text(
        f"Origin: zonewright\nSuite: {lock.suite}\nCodename: {lock.suite}\nDate: {email.utils.formatdate(lock.epoch)}\n"
        f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n"
    )
    return path


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(0o644)


def _run(argv: Sequence[str], environment: Mapping[str, str], bar: Bar, stop: threading.Event) -> None:
    """Run mmdebstrap and count dpkg's steps from what it says."""
    process = subprocess.Popen(
        argv,
        env={**tool.BASE_ENV, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    done = threading.Event()
    threading.Thread(target=_watch, args=(process, done, stop), daemon=True).start()
    said: list[bytes] = []
    try:
        assert process.stderr is not None
        with process.stderr as stderr:
            for line in stderr:
                log.debug("%s", line.decode(errors="replace").rstrip())
                said.append(line)
                if line.startswith((b"Unpacking ", b"Setting up ")):
                    bar.advance(1)
        returncode = process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        done.set()
    if returncode != 0:
        # Its last lines tell of the clean-up; what went wrong stands in those that begin with E: or dpkg:.
        telling = [line for line in said if line.startswith((b"E:", b"dpkg:", b" "))] or said
        raise tool.failure(argv, returncode, b"".join(telling[-4:]), subject="mmdebstrap")


def _watch(process: subprocess.Popen[bytes], done: threading.Event, stop: threading.Event) -> None:
    """End the run when it is told to stop, or takes too long."""
    deadline = time.monotonic() + TIMEOUT_S
    while not done.wait(0.2):
        if stop.is_set() or time.monotonic() > deadline:
            _end(process)
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask first: mmdebstrap then removes its root. Mode unshare may not hear; what that leaves, `_workspace` removes.

    What was mounted goes with the mount namespace mmdebstrap makes for itself.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        tool.kill_group(process)
