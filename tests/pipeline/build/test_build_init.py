"""os/init: the recipe, the checks, and the real build, twice."""

import subprocess

import pytest
from support import zoneparts

from pipeline.build import init
from pipeline.build.init import BadProgram, check_program, compile_script, load, sources
from pipeline.build.model import InitParams
from pipeline.env import Env
from pipeline.recipe import BadRecipe, check
from pipeline.store import Store


def test_the_shipped_recipe_fits_its_schema():
    assert load()["kind"] == "init"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"python": "three"}, "key python"),
        ({"cflags": ["-O2 `x`"]}, "key cflags"),
        ({"extra": 1}, "only the keys"),
        ({"libraries": ["-lm;x"]}, "key libraries"),
    ],
)
def test_a_recipe_that_could_reach_the_shell_is_refused(change, words):
    with pytest.raises(BadRecipe, match=words):
        check(load() | change, schema=init.SCHEMA, subject="init.toml")


def test_every_source_of_init_is_compiled():
    script = compile_script(load(), sorted(sources()))
    assert "runtime.init=/build/runtime/init/__init__.py" in script
    assert "runtime.init.boot=/build/runtime/init/boot.py" in script
    assert "/build/runtime/init/main.c /build/runtime/init/zsys.c /build/frozen.c" in script
    assert subprocess.run(["sh", "-n", "-c", script]).returncode == 0


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(60), b"\x7fELF\x02\x01" + bytes(60)])
def test_what_is_no_program_is_refused(data):
    with pytest.raises(BadProgram):
        check_program(data)


def test_a_dynamic_program_is_refused():
    with open("/proc/self/exe", "rb") as file:
        data = file.read()
    if b"ld-linux-x86-64.so.2\0" not in data[:8192]:
        pytest.skip("this Python is no dynamic x86-64 program")
    with pytest.raises(BadProgram, match="expected a static program"):
        check_program(data)


@pytest.mark.network
@pytest.mark.slow
def test_building_again_in_another_store_gives_the_same_program(tmp_path):
    first = zoneparts.zone_init()
    other = Store(tmp_path / "store")
    lock = zoneparts.LOCKS / "os-init.json"
    from pipeline.fetch import debian

    for package in debian.load(lock).packages:  # what is there need not be fetched again
        source = zoneparts.env().store.path(package.descriptor.digest)
        if source.exists():
            (other.path(package.descriptor.digest)).write_bytes(source.read_bytes())
    again = init.run(InitParams("init", load(), str(lock)), Env(other))
    assert again.elf == first.elf and again.manifest == first.manifest
    assert other.tags()["os/init"].digest == first.manifest.digest


@pytest.mark.network
def test_the_program_says_what_its_names_are_for(tmp_path):
    program = zoneparts.env().store.path(zoneparts.zone_init().elf.digest)
    (tmp_path / "program").write_bytes(program.read_bytes())
    (tmp_path / "program").chmod(0o755)
    for name, code, words in (
        ("zone", 1, "the zone's agent is a part of init"),
        ("styrolite", 125, "usage: styrolite CONFIG"),
    ):
        (tmp_path / name).symlink_to("program")
        done = subprocess.run([tmp_path / name], capture_output=True, text=True)
        assert done.returncode == code and words in done.stderr
    (tmp_path / "init").symlink_to("program")
    done = subprocess.run([tmp_path / "init"], capture_output=True, text=True)
    assert done.returncode == 1 and "init runs as pid 1 of a zone only" in done.stderr
