"""Recipes and specs: TOML files checked against a JSON Schema, with errors that name file, key, expected and got."""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError

PROJECT = Path(__file__).resolve().parent.parent
IMAGES = PROJECT / "zones" / "recipes"
KERNELS = PROJECT / "kernel"


class UnknownName(PipelineError):
    """No recipe or spec of that name."""


class BadRecipe(PipelineError):
    """A recipe or spec that breaks its schema, or is no TOML."""


def names(directory: Path) -> list[str]:
    """The names a directory of TOML files offers, sorted."""
    return sorted(path.stem for path in directory.glob("*.toml"))


def load(directory: Path, name: str, *, kind: str, schema: Path) -> dict[str, Any]:
    """Read `directory/name.toml` and check it.

    kind:    what the name stands for, for the error: "zone", "kernel", "recipe".
    Raises:  UnknownName with the nearest names; BadRecipe with file, key, expected and got.
    """
    path = directory / f"{name}.toml"
    if not path.is_file():
        raise unknown(kind, name, names(directory))
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRecipe(str(path), expected="TOML", got=str(error)) from error
    check(document, schema=schema, subject=str(path))
    return document


def maker_of(name: str) -> str:
    """The task that makes what recipe:NAME names. Raises UnknownName with the nearest names."""
    for task, directory in (("recipe", IMAGES), ("kernel", KERNELS)):
        if name in names(directory):
            return f"{task}:{name}"
    raise unknown("recipe", name, names(IMAGES) + names(KERNELS))


def unknown(kind: str, name: str, known: list[str]) -> UnknownName:
    """The error for a name that is not there, with what may have been meant."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known) or 'none'}"
    return UnknownName(f"{kind} {name!r}", got=f"no such {kind}", hint=hint)


def check(document: Any, *, schema: Path, subject: str) -> None:
    """Check a document against the JSON Schema in a file; the first offence becomes a BadRecipe."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(json.loads(schema.read_text()))
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if error is None:
        return
    key = error.json_path.removeprefix("$").removeprefix(".") or "the top level"
    expected, got = _in_words(error)
    raise BadRecipe(f"{subject}: key {key}", expected=expected, got=got)


def _in_words(error: Any) -> tuple[str, str]:
    rule, value = error.validator, error.validator_value
    got = repr(error.instance)[:120]
    match rule:
        case "type":
            return f"{value if isinstance(value, str) else ' or '.join(value)}", got
        case "enum":
            return "one of " + ", ".join(map(str, value)), got
        case "required":
            missing = [name for name in value if name not in error.instance]
            return f"a value for {', '.join(missing)}", "none"
        case "additionalProperties":
            known = list(error.schema.get("properties", {}))
            extra = [name for name in error.instance if name not in known]
            near = difflib.get_close_matches(extra[0], known, n=1) if extra else []
            meant = f" (did you mean {near[0]}?)" if near else ""
            return f"only the keys {', '.join(known)}", ", ".join(extra) + meant
        case "pattern":
            return error.schema.get("description") or f"text that matches {value}", got
        case "minimum" | "exclusiveMinimum":
            return f"at least {value}", got
        case "maximum" | "exclusiveMaximum":
            return f"at most {value}", got
    return str(error.schema.get("description") or error.message)[:300], got
