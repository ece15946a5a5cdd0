"""The health check of an image, with what a spec says laid over it: a command that tells whether the workload is well.

Source:  OCI image configs as docker writes them, "Healthcheck" and "Shell"; moby's daemon/health.go for the defaults.
"""

from __future__ import annotations

from typing import Any

from pipeline.bundle.errors import BadImageConfig, BadSpec
from pipeline.bundle.model import Healthcheck, HealthWish

NONE, EXEC, SHELL = "NONE", "CMD", "CMD-SHELL"
DEFAULT_SHELL = ("/bin/sh", "-c")
LEAST_S, MOST_S = 0.001, 86400 * 365
MOST_RETRIES = 1000
_NS = 1_000_000_000
_TIMES = (
    ("interval_s", "Interval"),
    ("timeout_s", "Timeout"),
    ("start_period_s", "StartPeriod"),
    ("start_interval_s", "StartInterval"),
)


def parse_health(document: dict[str, Any] | None) -> HealthWish | None:
    """`[healthcheck]` of a spec, which fits its schema: `command` is a list, or a text for the image's shell."""
    if document is None:
        return None
    wish = dict(document)
    command = wish.pop("command", None)
    if isinstance(command, str):
        wish["shell"] = command
    elif command is not None:
        wish["argv"] = tuple(command)
    return HealthWish(**wish)


def resolve_health(wish: HealthWish | None, config: dict[str, Any], *, subject: str, key: str) -> Healthcheck | None:
    """The check of a workload, None where it has none.

    config:  of the image, the inner object. key: of the spec, for what is said of it.
    Raises:  BadImageConfig; BadSpec for times of a check that neither has.
    """
    wish = wish or HealthWish()
    if wish.disable:
        return None
    own = wish.shell is not None or wish.argv is not None
    test = _test(config, subject) if not own else ()
    argv = wish.argv or _argv(test if wish.shell is None else (SHELL, wish.shell), config, subject)
    if not argv:
        if wish != HealthWish():
            raise BadSpec(key, expected="a command, as the image has no health check", got="none")
        return None
    image = _times(config, subject)  # they hold for a command of the spec, too, as docker has it
    given = {name: getattr(wish, name) for name in (*(name for name, _ in _TIMES), "retries")}
    return Healthcheck(argv, **(image | {name: value for name, value in given.items() if value is not None}))


def _check(config: dict[str, Any], subject: str) -> dict[str, Any]:
    found = config.get("Healthcheck") or {}
    if not isinstance(found, dict):
        raise BadImageConfig(f"{subject}: Healthcheck", expected="an object", got=repr(found)[:120])
    return found


def _test(config: dict[str, Any], subject: str) -> tuple[str, ...]:
    return _words(_check(config, subject).get("Test"), f"{subject}: Healthcheck.Test")


def _argv(test: tuple[str, ...], config: dict[str, Any], subject: str) -> tuple[str, ...]:
    """What is executed for a Test; () for none."""
    kind, *words = test or (NONE,)
    if kind == NONE and not words:
        return ()
    if kind == EXEC and words:
        return tuple(words)
    if kind == SHELL and len(words) == 1:
        return (*(_words(config.get("Shell"), f"{subject}: Shell") or DEFAULT_SHELL), *words)
    expected = f'["{NONE}"], ["{EXEC}", …] or ["{SHELL}", TEXT]'
    raise BadImageConfig(f"{subject}: Healthcheck.Test", expected=expected, got=repr(list(test))[:120])


def _words(value: object, subject: str) -> tuple[str, ...]:
    value = value or []
    if not isinstance(value, list) or not all(isinstance(word, str) and "\0" not in word for word in value):
        raise BadImageConfig(subject, expected="a list of strings without NUL", got=repr(value)[:120])
    return tuple(value)


def _times(config: dict[str, Any], subject: str) -> dict[str, Any]:
    """The image's times and retries. 0 means the default, as docker reads it."""
    check, found = _check(config, subject), {}
    for name, key in _TIMES:
        value = _number(check.get(key), f"{subject}: Healthcheck.{key}", most=MOST_S * _NS, unit="nanoseconds")
        if value:
            found[name] = max(value / _NS, LEAST_S)
    retries = _number(check.get("Retries"), f"{subject}: Healthcheck.Retries", most=MOST_RETRIES, unit="retries")
    return found | ({"retries": retries} if retries else {})


def _number(value: object, subject: str, *, most: int, unit: str) -> int:
    value = 0 if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise BadImageConfig(subject, expected=f"a number of {unit} from 0 to {most}", got=repr(value)[:120])
    return value
