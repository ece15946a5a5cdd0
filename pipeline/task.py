"""What lies between the graph and a stage: the small result files, and when one of them still holds.

A task's target is build/<stage>/<name>.json. It names blobs by digest; the bytes live in the store. doit's own
database decides nothing: a result holds only while its file can be read and every blob it names hashes to its name.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pipeline import progress
from pipeline.env import Env, intact, open_env
from pipeline.errors import PipelineError
from pipeline.jsonmodel import from_json, to_json
from pipeline.layers import Spools
from pipeline.oci import Descriptor, canonical_json, parse_json
from pipeline.recipe import PROJECT
from pipeline.signals import exit_on_signals
from pipeline.store import write_atomic

BUILD = PROJECT / "build"
T = TypeVar("T")

VARIABLES: dict[str, str] = {
    "zone": "the name of a zone: a file in zones/",
    "wait": "no: boot returns as soon as the zone runs, without waiting for its ports",
    "host": "where zones run: xen, lab",
    "to": "HOST/REPOSITORY[:TAG] of a registry: where to publish to",
    "recipe": "the name of a recipe in zones/recipes or kernel, to publish its image",
    "offline": "yes: open no socket (./doit --offline)",
    "cache": "docker://HOST/REPOSITORY: the remote cache, instead of the configured one (./doit --cache=…)",
}


class UnknownVariable(PipelineError):
    """A NAME=VALUE on the command line that no task reads, or whose value is not one of its own."""


class StageFailed(PipelineError):
    """The machine said no while a stage worked: a full disk, a file that may not be read."""


class NotBuilt(PipelineError):
    """The result of a stage that has not run."""


_asked = {"offline": "no", "cache": ""}


def use(*, offline: str, cache: str) -> None:
    """Say what this run's Env is to be like, before `env` is first called. Raises UnknownVariable."""
    if offline not in ("yes", "no"):
        raise UnknownVariable("offline=…", expected="yes or no", got=repr(offline))
    _asked.update(offline=offline, cache=cache)


@functools.cache
def env() -> Env:
    """The one Env of this process: the user's store and settings, progress on stderr."""
    made = open_env(progress.for_terminal(), offline=_asked["offline"] == "yes", cache=_asked["cache"])
    made.store.register(PROJECT)
    exit_on_signals()
    return dataclasses.replace(made, spools=Spools(made.store, made.config.limits))


def result_path(stage: str, name: str) -> Path:
    """Where the result file of a task is."""
    return BUILD / stage / f"{name}.json"


def read_result(cls: type[T], stage: str, name: str) -> T:
    """The result of a task that ran before; raises NotBuilt or BadModel."""
    path = result_path(stage, name)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotBuilt(f"{stage} {name}", got="not built yet", hint=f"./doit {stage}:{name}") from None
    return from_json(cls, parse_json(data, subject=str(path)), subject=str(path))


def slug(reference: str) -> str:
    """A name for what a reference names, fit for a task and a file: `recipe:debian-cloud` -> `recipe-debian-cloud`."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", reference)


def named(references: Iterable[str]) -> dict[str, str]:
    """A name of its own for every reference: two that `slug` makes alike get numbers."""
    names: dict[str, str] = {}
    for reference in dict.fromkeys(references):
        name, number = slug(reference), 1
        while name in names:
            number += 1
            name = f"{slug(reference)}-{number}"
        names[name] = reference
    return names


def stage(run: Callable[[Any, Env], T], params: Any) -> Callable[..., T]:
    """A stage's `run` as `execute` wants it: params are ready, or a class (or partial) to be filled with the inputs."""
    return functools.partial(_run_stage, run, params)


def _run_stage(run: Callable[[Any, Env], T], params: Any, environment: Env, *inputs: Any) -> T:
    return run(params(*inputs) if inputs else params, environment)


def execute(stage: str, name: str, run: Callable[..., Any], inputs: Sequence[tuple[type, str, str]]) -> None:
    """Run a stage on the results it needs and publish its own result file.

    inputs:  (result class, stage, name) of each result `run` takes, after env.
    """
    arguments: list[Any] = [read_result(cls, *where) for cls, *where in inputs]
    try:
        result = run(env(), *arguments)
    except OSError as error:
        hint = f"free space where {env().store.root} lies, and run again" if error.errno == errno.ENOSPC else ""
        where = f" ({error.filename})" if error.filename else ""
        raise StageFailed(f"{stage} {name}", got=f"{error.strerror or error}{where}", hint=hint) from error
    write_atomic(result_path(stage, name), canonical_json(to_json(result)) + b"\n")


def holds(cls: type, stage: str, name: str, tag: str = "") -> bool:
    """Can the result of a task be used as it is?

    tag: its name in the store, which a build of another checkout may have given to something else since.
    """
    try:
        store = env().store
        result: Any = read_result(cls, stage, name)
        return intact(store, result) and (not tag or _leads_to(store.tags().get(tag), result))
    except PipelineError:
        return False


def _leads_to(named: Descriptor | None, result: Any) -> bool:
    image = getattr(result, "image", result)  # a kernel's
    return named is not None and named.digest == image.manifest.digest


def check_variables(given: Sequence[str]) -> None:
    """Refuse variables no task reads: `zon=nginx` would otherwise boot something else. Raises UnknownVariable."""
    import difflib

    for name in given:
        if name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, n=1)
            hint = f"did you mean {near[0]}=?" if near else f"there are: {', '.join(VARIABLES)}"
            raise UnknownVariable(f"{name}=…", got="no task reads a variable of that name", hint=hint)


def refuse(error: PipelineError) -> NoReturn:
    """An action for what cannot be done, as was found when the graph was made: it raises the error."""
    raise error


def interrupted() -> NoReturn:
    """End the process as Ctrl-C should: one word, exit code 130, nothing of doit's own."""
    env().progress.close()
    sys.stderr.write("interrupted\n")
    sys.exit(130)


def run_checks(
    checks: Sequence[Sequence[str | Path]],
    last: Sequence[str | Path],
    otherwise: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> None:
    """Run every check, then `last` with the user's arguments, or with others if there are none, all on this terminal.

    Effects: ends the process with the first exit code that is not 0, so that what `last` said stays the last line.
    """
    env().progress.close()
    codes = [subprocess.run([str(word) for word in check], cwd=PROJECT).returncode for check in checks]
    for check, code in zip(checks, codes, strict=True):
        if code:
            sys.stderr.write(f"failed: {' '.join(str(word) for word in check)}\n")
    codes.append(subprocess.run([str(word) for word in (*last, *(arguments or otherwise))], cwd=PROJECT).returncode)
    if code := next((code for code in codes if code), 0):
        sys.exit(code)


class Reporter:
    """How a run of the graph looks: one line per task that worked, one for all that had nothing to do."""

    desc = "zonewright"

    def __init__(self, outstream: Any, options: dict[str, Any]) -> None:
        self._out = env().progress
        self._worked = self._idle = 0
        self._errors: list[str] = []

    def initialize(self, tasks: Any, selected_tasks: Any) -> None: ...

    def get_status(self, task: Any) -> None: ...

    def execute_task(self, task: Any) -> None:
        if task.actions and not task.name.startswith("_"):
            self._out.say(f"{task.name.replace(':', ' ')}")

    def add_success(self, task: Any) -> None:
        self._worked += bool(task.actions)

    def skip_uptodate(self, task: Any) -> None:
        self._idle += 1

    def skip_ignore(self, task: Any) -> None: ...

    def add_failure(self, task: Any, fail: Any) -> None:
        self._errors.append(fail_text(task, fail))

    def cleanup_error(self, exception: Any) -> None:
        self._errors.append(str(exception))

    def runtime_error(self, message: str) -> None:
        self._errors.append(message)

    def teardown_task(self, task: Any) -> None: ...

    def complete_run(self) -> None:
        if self._idle and not self._worked and not self._errors:
            self._out.say(f"nothing to do: {self._idle} results are up to date")
        self._out.close()
        for error in self._errors:
            env().progress.say(f"error: {error}")


def fail_text(task: Any, fail: Any) -> str:
    """One sentence for an error of ours; the traceback for one that is a defect."""
    trace = getattr(fail, "get_msg", lambda: str(fail))()
    return str(getattr(fail, "message", "")) if getattr(fail, "exception", None) is None else trace or str(task.name)
