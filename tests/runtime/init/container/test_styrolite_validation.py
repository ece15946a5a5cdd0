"""The validation programs of the OCI's runtime-tools on styrolite, where somebody has built them.

    export GOPATH=~/go GO111MODULE=off CGO_ENABLED=0   # it has no module file, and all it needs in vendor/
    cd $GOPATH/src/github.com/opencontainers && git clone -b v0.9.0 https://github.com/opencontainers/runtime-tools
    cd runtime-tools && go build -o runtimetest ./cmd/runtimetest
    for each in validation/*/; do go build -o $each$(basename $each).t ./$each; done
    ZONEWRIGHT_OCI_VALIDATION=$PWD pytest tests/runtime/init/container/test_styrolite_validation.py

Each program prints what it found in TAP; what may be `not ok` here is listed with the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import zoneparts

DIRECTORY = os.environ.get("ZONEWRIGHT_OCI_VALIDATION", "")
if not DIRECTORY:
    pytest.skip("ZONEWRIGHT_OCI_VALIDATION names no directory with runtime-tools", allow_module_level=True)
PROGRAMS = (
    *("default", "hostname", "process", "process_user", "process_oom_score_adj", "process_rlimits"),
    *("root_readonly_true", "linux_masked_paths", "linux_readonly_paths", "linux_sysctl", "linux_uid_mappings"),
    *("linux_devices", "linux_ns_itype"),
)
# Linux since 6.8 lists mounts by the order in which they were made, and ours are made before they are put in place.
IN_ORDER = re.compile(r"mounts\[\d+\] \(\S+\) found in order")
# Go's runtime, since 1.19, raises the soft limit to the hard one before the program looks.
OF_GO = re.compile("has expected soft RLIMIT_NOFILE")
# The line of a program about a whole run of another, which has its own lines.
SUMMARY = re.compile(r"check (masked|read-only|hostname)")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_fails_but_what_is_known(tmp_path: Path, name: str) -> None:
    styrolite = tmp_path / "styrolite"
    styrolite.write_bytes(zoneparts.env().store.read(zoneparts.zone_init().elf.digest))
    styrolite.chmod(0o755)
    runtime = tmp_path / "runtime"
    shim = Path(zoneparts.__file__).with_name("ociruntime.py")
    runtime.write_text(f'#!/bin/sh\nexec {sys.executable} {shim} "$@"\n')
    runtime.chmod(0o755)
    (tmp_path / "state").mkdir()
    env = os.environ | {"RUNTIME": str(runtime), "OCI_STYROLITE": str(styrolite), "OCI_STATE": str(tmp_path / "state")}
    program = next(path for path in Path(DIRECTORY).rglob(f"{name}.t"))
    done = subprocess.run([program], cwd=DIRECTORY, env=env, capture_output=True, text=True, timeout=120)
    text = done.stdout.replace("\\n", "\n")  # what a program ran is quoted in its own words
    errors = tmp_path / "state" / "errors.log"
    said = errors.read_text() if errors.exists() else ""
    passed = re.findall(r"^ok \d+ - (.*)", text, re.MULTILINE)
    failed = re.findall(r"^not ok \d+ - (.*)", text, re.MULTILINE)
    assert said == "" and len(passed) > 2, (said, done.stdout[-2000:], done.stderr[-2000:])
    assert [line for line in failed if not any(known.match(line) for known in (IN_ORDER, OF_GO, SUMMARY))] == []
