"""The tables of frozen modules: what is in a pack, what is left out, and that what is imported from one is the same."""

from __future__ import annotations

import marshal
import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest

from pipeline.build import freeze
from pipeline.build.init import STAND_INS, sources

OURS = {
    name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
    for name, path in sources().items()
    if name.endswith(".py") and "/" in name and not name.startswith(STAND_INS)
}
SMALL = {
    "a": ("a/__init__.py", "import sys\n"),
    "a.b": (
        "a/b.py",
        "from a import c\nONE: int = 1\nTWO: str\n\n\ndef late():\n    from a import d\n    return d.VALUE\n",
    ),
    "a.c": (
        "a/c.py",
        "def f(x: int, *rest: str, y: bytes = b'', **more: float) -> list[str]:\n    'doc'\n    return [x]\n",
    ),
    "a.d": ("a/d.py", "import a.c\nVALUE = a.c.f(4)\n"),
}


@pytest.fixture
def small(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, (file, text) in SMALL.items():
        found[name] = tmp_path / file
        found[name].parent.mkdir(exist_ok=True)
        found[name].write_text(text)
    return found


def packed(data: bytes) -> dict[str, CodeType]:
    values: dict[str, object] = {}
    exec(marshal.loads(data), values)
    return dict(values["modules"])  # type: ignore[call-overload]


def test_import_brings_what_is_said_outside_of_functions_and_packages_above(small: dict[str, Path]) -> None:
    assert freeze.imported("a.b", small) == ["a", "a.b", "a.c"]
    assert freeze.imported("a.d", small) == ["a", "a.c", "a.d"]


def test_annotations_and_docstrings_are_left_out_and_nothing_else(small: dict[str, Path]) -> None:
    values: dict[str, object] = {}
    exec(freeze.compiled("a.c", small["a.c"].read_bytes()), values)
    function = values["f"]
    assert callable(function) and function.__annotations__ == {} and function.__doc__ is None
    assert function(3, "x", y=b"1", z=2.0) == [3]
    values = {"__name__": "a.b"}
    exec(freeze.compiled("x", b"ONE: int = 1\nTWO: str\n"), values)
    assert values["ONE"] == 1 and "TWO" not in values and "__annotations__" not in values


def test_pack_has_its_modules_as_they_are_alone(small: dict[str, Path]) -> None:
    found = packed(freeze.pack(small))
    assert set(found) == set(small)
    for name, code in found.items():
        assert code == marshal.loads(freeze.freeze(name, small[name].read_bytes()))


def test_same_files_give_the_same_text_in_every_run() -> None:
    """In processes whose strings hash differently, and lie elsewhere."""
    program = (
        "import sys, hashlib; from pathlib import Path; from pipeline.build import freeze;"
        "named = dict(pair.split('=', 1) for pair in sys.argv[1:]);"
        "text = freeze.table({name: Path(path) for name, path in named.items()});"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    words = [f"{name}={path}" for name, path in OURS.items()]
    found = {
        subprocess.run(
            [sys.executable, "-c", program, *order],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[3])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, order in (("1", words), ("2", words[::-1]), ("3", words))
    }
    assert len(found) == 1


def test_packs_of_the_program_have_what_init_and_agent_import_and_no_more() -> None:
    by_pack, left = {}, set(OURS)
    for first in freeze.PACKS:
        by_pack[first] = [name for name in freeze.imported(first, OURS) if name in left]
        left -= set(by_pack[first])
    entry, boot, agent = by_pack.values()
    assert (
        "runtime.init.report" in entry and "runtime.init.mounts" in boot and "runtime.init.container.launcher" in agent
    )
    for late in ("runtime.init.agent.metrics", "runtime.init.agent.link", "runtime.init.container.styrolite"):
        assert late in left, "is imported when it is needed"
