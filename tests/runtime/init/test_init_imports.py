"""What init imports decides how long a zone takes to start: an allow-list, by source and by running it."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.init import imports

PROJECT = Path(__file__).resolve().parents[3]
SOURCES = sorted((PROJECT / "runtime" / "init").rglob("*.py"))
ALLOWED = {"_signal", "_socket", "_struct", "errno", "gc", "posix", "select", "sys", "time", "zsys"}
ALLOWED |= {"_frozen_importlib", "_imp"}  # of imports.py
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
    assert outside <= (BUILT_IN if path.parent.name == "standin" else ALLOWED)


def test_every_c_module_is_in_the_program():
    main = (PROJECT / "runtime" / "init" / "main.c").read_text()
    for name in ALLOWED - {"_frozen_importlib"}:  # which is frozen, and there before anything else
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


def test_module_of_a_pack_that_fails_is_not_there_and_can_be_had_later(monkeypatch: pytest.MonkeyPatch) -> None:
    name, has_room = "made_for_this_test", list[bool]()
    code = compile("if not has_room: raise MemoryError\nvalue = 1", name, "exec")
    monkeypatch.setattr(imports, "_where", {name: "a pack"})
    monkeypatch.setattr(imports, "_packed", {})
    monkeypatch.setattr(imports, "_said_by", lambda pack: {name: code})
    monkeypatch.setattr("builtins.has_room", has_room, raising=False)
    with pytest.raises(MemoryError):
        imports._find_and_load(name, __import__)
    assert name not in sys.modules
    has_room.append(True)
    try:
        assert imports._find_and_load(name, __import__).value == 1
    finally:
        del sys.modules[name]
