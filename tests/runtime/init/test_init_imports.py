"""What init imports decides how long a zone takes to start: an allow-list, by source and by running it."""

import _imp
import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from runtime.init.standin.importlib import _bootstrap

PROJECT = Path(__file__).resolve().parents[3]
SOURCES = sorted((PROJECT / "runtime" / "init").rglob("*.py"))
ALLOWED = {"_signal", "_socket", "_struct", "errno", "gc", "posix", "select", "sys", "time", "zsys"}
BUILT_IN = {"_codecs", "_io"}  # of the stand-ins: the interpreter has these before it imports anything


def imported(tree: ast.AST) -> set[str]:
    if isinstance(tree, ast.If) and isinstance(tree.test, ast.Name) and tree.test.id == "MYPY":
        return set()  # never runs
    if isinstance(tree, ast.Import):
        return {name.name for name in tree.names}
    if isinstance(tree, ast.ImportFrom):
        return {str(tree.module)}
    return {name for node in ast.iter_child_nodes(tree) for name in imported(node)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PROJECT / "runtime" / "init")))
def test_only_c_modules_and_itself_are_imported(path):
    own = ("runtime.init", "pipeline.seccomp")  # the latter only for the filters of bundles, in `styrolite --bundle`
    outside = {name for name in imported(ast.parse(path.read_text())) if not name.startswith(own)}
    assert outside <= (BUILT_IN if "standin" in path.parts else ALLOWED)


def test_every_c_module_is_in_the_program():
    main = (PROJECT / "runtime" / "init" / "main.c").read_text()
    for name in ALLOWED:
        assert f'{{"{name}", ' in main


def test_importing_init_loads_nothing_else():
    script = (
        "import sys, types, json; sys.path.insert(0, sys.argv[1]); sys.modules['zsys'] = types.ModuleType('zsys'); "
        "before = set(sys.modules); import runtime.init.boot, runtime.init.entry, runtime.init.container.styrolite; "
        "import runtime.init.agent.main, runtime.init.agent.methods, runtime.init.agent.execs, "
        "runtime.init.agent.create, runtime.init.agent.copy, runtime.init.agent.metrics, runtime.init.agent.ports, "
        "runtime.init.agent.system, runtime.init.agent.dial, runtime.init.agent.health; "
        "print(','.join(sorted(set(sys.modules) - before)))"
    ).replace("import sys, types, json", "import sys, types")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(PROJECT)], capture_output=True, text=True, check=True
    )
    loaded = {name for name in done.stdout.strip().split(",") if not name.startswith("runtime")}
    assert loaded <= ALLOWED, json.dumps(sorted(loaded))


@pytest.fixture
def importer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program's, with this interpreter's modules beside those of a pack that are made for a test."""
    monkeypatch.setattr(_bootstrap, "sys", sys, raising=False)
    monkeypatch.setattr(_bootstrap, "_imp", _imp, raising=False)
    monkeypatch.setattr(_bootstrap, "_where", {})
    monkeypatch.setattr(_bootstrap, "_packed", {})
    before = set(sys.modules)
    yield _bootstrap
    for name in set(sys.modules) - before:
        del sys.modules[name]


def packed(importer: ModuleType, monkeypatch: pytest.MonkeyPatch, **sources: str) -> None:
    codes = {name: compile(text, name, "exec") for name, text in sources.items()}
    monkeypatch.setattr(importer, "_where", dict.fromkeys(codes, "a pack"))
    monkeypatch.setattr(importer, "_said_by", lambda pack: dict(codes))


def test_module_of_a_pack_that_fails_is_not_there_and_can_be_had_later(
    importer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, has_room = "made_for_this_test", list[bool]()
    packed(importer, monkeypatch, **{name: "if not has_room: raise MemoryError\nvalue = 1"})
    monkeypatch.setattr("builtins.has_room", has_room, raising=False)
    with pytest.raises(MemoryError):
        importer._find_and_load(name, __import__)
    assert name not in sys.modules
    has_room.append(True)
    assert importer._find_and_load(name, __import__).value == 1


def test_of_each_module_the_interpreter_finds_what_it_asks_of_one_that_is_there(
    importer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is imported as well; else it has an AttributeError written for each import of it."""
    text = "import sys\nseen = dict(vars(sys.modules[__name__]))"
    packed(importer, monkeypatch, made_for_this_test=text)
    module = importer._find_and_load("made_for_this_test", __import__)
    for values in (vars(module), module.seen):
        assert values["__path__"] == () and values["__spec__"].name == "made_for_this_test"
        assert not values["__spec__"]._initializing


def test_what_is_not_in_the_program_is_said_to_be_missing(importer: ModuleType) -> None:
    with pytest.raises(ModuleNotFoundError, match="no module 'not_in_the_program' in the zone's program") as caught:
        importer._find_and_load("not_in_the_program", __import__)
    assert caught.value.name == "not_in_the_program"


def test_names_of_a_package_that_are_modules_are_imported(
    importer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(importer, monkeypatch, **{"made": "here = 1", "made.below": "value = 2"})
    above = importer._find_and_load("made", __import__)
    assert importer._handle_fromlist(above, ("here", "below"), __import__) is above
    assert (above.here, above.below.value) == (1, 2)
