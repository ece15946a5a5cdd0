"""A child of zoned: one piece of work, then its end. `python -m runtime.host.images.child`

stdin:   {"store": PATH, "kind": CLASS, "work": {...}} and a newline; then it stays open for as long as anybody waits.
stdout:  {"progress": {...}} as it goes on; at last {"ok": {...}} or {"error": {"kind": CLASS, ...}}. A line each.
Credentials come by stdin alone, are kept in memory, and go to the registry they are for.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from pipeline.config import load_config
from pipeline.env import Env
from pipeline.errors import PipelineError, SentenceError
from pipeline.fetch.auth import Credentials
from pipeline.fetch.reference import RegistryReference, parse
from pipeline.images.errors import machine_errors
from pipeline.jsonmodel import from_json, to_json
from pipeline.store import Store
from runtime.host.images import model
from runtime.host.images.report import Report
from runtime.host.images.work import run

NICE = 5  # a zone's engine comes first
KINDS: dict[str, type[Any]] = {cls.__name__: cls for cls in (model.PullWork, model.ImportWork, model.AssembleWork)}


class ChildBroken(PipelineError):
    """A mistake of ours, not of the image's."""


def main() -> int:
    """Read the request, do it, tell."""
    confine()
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    report = Report(sys.stdout)
    try:
        work: model.Work = from_json(KINDS[request["kind"]], request["work"])
        with machine_errors():
            env = Env(Store(Path(request["store"])), report, config=load_config(), known=known(work))
            report.say_last({"ok": to_json(run(work, env, report.phase))})
    except SentenceError as error:
        report.say_last({"error": error_document(error)})
        return 1
    except Exception as error:
        # The name of it only: its text may hold what no log may.
        broken = ChildBroken("image task", got=f"{type(error).__name__} in {_place(error)}")
        report.say_last({"error": error_document(broken)})
        return 1
    return 0


def confine() -> None:
    """No core with secrets in it, and no more of the processor than others leave."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICE)


def known(work: model.Work) -> dict[str, Credentials]:
    """The caller's credentials by the one host they are for."""
    if not isinstance(work, model.PullWork) or work.credentials is None:
        return {}
    reference, given = parse(work.image), work.credentials
    if not isinstance(reference, RegistryReference):
        return {}
    return {reference.host: Credentials(given.user, given.password, given.identity_token, given.registry_token)}


def error_document(error: SentenceError) -> dict[str, Any]:
    """An error's fields; `kind` is the name of its class."""
    return {
        "kind": type(error).__name__,
        "subject": error.subject,
        "expected": error.expected,
        "got": error.got,
        "hint": error.hint,
        "temporary": error.temporary,
    }


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "nowhere"


def _end_with_parent() -> None:
    """zoned holds the other end of stdin: where that closes nobody waits for us, nor for what we have started."""
    while os.read(0, 4096):  # not by way of sys.stdin, whose lock would be waited for at our own end
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
