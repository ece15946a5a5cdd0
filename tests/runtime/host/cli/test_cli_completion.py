"""Completion: the words, and the shells that ask for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.oci import Descriptor, Digest
from pipeline.store import Store
from runtime.host.cli.candidates import candidates
from runtime.host.cli.completion import SCRIPTS, cut_at, split

PROJECT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def things(zoned):
    zoned.add("web")
    zoned.add("worker")
    zoned.add("db", state="exited")
    manifest = Store().put(b"{}")
    named = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(b"{}"), manifest.size_bytes)
    Store().tag("images/127.0.0.1:5000/app:1", named)
    Store().tag("zones/shop", named)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["in"], {"inspect"}),
        (["host", ""], {"up", "down", "status", "topology", "console", "platform", "cert", "dial-stdio"}),
        (["host", "cert", "c"], {"client"}),
        (["stop", ""], {"web", "worker", "db"}),
        (["stop", "web", "w"], {"web", "worker"}),
        (["stop", "-t", "3", "d"], {"db"}),
        (["--host", "la"], {"lab"}),
        (["ps", "--fo"], {"--format"}),
        (["ps", "--format", ""], {"table", "json", "yaml"}),
        (["ps", "--format=j"], {"--format=json"}),
        (["ps", "--filter", "st"], {"state="}),
        (["kill", "-s", "HU"], {"HUP"}),
        (["kill", "-sHUP", "d"], {"db"}),
        (["cp", "we"], {"web:"}),
        (["exec", "-it", "wor"], {"worker"}),
        (["exec", "web", "-"], set()),
        (["run", "127"], {"127.0.0.1:5000/app:1"}),
        (["run", "recipe:n"], {"recipe:nginx"}),
        (["run", "-it", "--rm", "recipe:nginx", "--r"], set()),
        (["run", "--restart", "a"], {"always"}),
        (["run", "--cap-add", "SYS_T"], {"SYS_TIME", "SYS_TTY_CONFIG"}),
        (["run", "--limit", "pi"], {"pids.max="}),
        (["run", "--ulimit", "nof"], {"nofile="}),
        (["run", "--security-opt", "no"], {"no-new-privileges"}),
        (["run", "--pid", ""], {"own", "zone"}),
        (["boot", ""], {"shop"}),
        (["port", "web", ""], set()),
        (["nonsense", ""], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words(line: list[str], words: set[str]) -> None:
    assert set(candidates(line).words) == words


def test_files_are_left_to_the_shell() -> None:
    assert candidates(["cp", "x"]).left_to_shell == "files"
    assert candidates(["run", "--env-file", ""]).left_to_shell == "files"
    assert candidates(["ps", ""]).left_to_shell == ""


def test_host_that_does_not_answer_offers_no_zones(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("ZONE_HOST", f"unix:{tmp_path}/nobody.sock")
    assert candidates(["stop", ""]).words == {}


def test_host_on_the_line_is_the_one_that_is_asked(zoned, monkeypatch) -> None:
    monkeypatch.setenv("ZONE_HOST", "unix:/nowhere")
    assert set(candidates(["--host", zoned.address, "stop", "d"]).words) == {"db"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("zone ", ["zone", ""]),
        ("zone st", ["zone", "st"]),
        ("zone run 'a b", ["zone", "run", "a b"]),
        ('zone run "a b" c', ["zone", "run", "a b", "c"]),
        ("zone a\\", ["zone", "a"]),
    ],
)
def test_lines_are_split_as_far_as_they_go(line: str, words: list[str]) -> None:
    assert split(line) == words


def test_bash_replaces_only_what_is_behind_the_last_break() -> None:
    assert cut_at("127.0.0.1:5000/app:1", " :=") == len("127.0.0.1:5000/app:")
    assert cut_at("127.0.0.1:5000/app:1", " =") == 0


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with `zone` on it."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "zone"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {PROJECT}/.venv/bin/python -m runtime.host.cli "$@"\n')
    command.chmod(0o755)
    return f"{command.parent}:{os.environ['PATH']}"


def shell(name: str, script: str, path: str) -> list[str]:
    if shutil.which(name) is None:
        pytest.skip(f"needs {name} (Debian package {name})")
    flags = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[name]
    done = subprocess.run(
        [name, *flags, "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.splitlines()


BASH = """
source <(zone completion bash)
COMP_LINE='{line}' COMP_POINT=${{#COMP_LINE}} COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_zone
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("zone inspect w", ["web", "worker"]),
        ("zone run 127.0.0.1:5000/a", ["5000/app:1"]),
        ("zone run recipe:n", ["nginx"]),
        ("zone cp we", ["web:"]),
        ("zone host sta", ["status"]),
    ],
)
def test_bash(path: str, line: str, words: list[str]) -> None:
    assert shell("bash", BASH.format(line=line), path) == words


def test_bash_has_the_command_registered(path: str) -> None:
    assert shell("bash", "source <(zone completion bash); complete -p zone", path) == ["complete -F _zone zone"]


def test_fish(path: str) -> None:
    asked = "zone completion fish | source; complete -C 'zone inspect w'; complete -C 'zone host sta'"
    assert shell("fish", asked, path) == [
        "web\tready",
        "worker\tready",
        "status\tIs it up, what runs there, what is left.",
    ]


def test_zsh(path: str, tmp_path: Path) -> None:
    """In zsh completion runs only in its line editor: a terminal types a line, and Tab."""
    import pty
    import select

    if shutil.which("zsh") is None:
        pytest.skip("needs zsh (Debian package zsh)")
    ours, theirs = pty.openpty()
    environment = os.environ | {"PATH": path, "TERM": "dumb", "HOME": str(tmp_path)}
    process = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([ours], [], [], 120)[0], seen
            seen += os.read(ours, 4096)
        seen = seen.partition(text)[2]

    script = "PS1='> '; autoload -Uz compinit; compinit -u -D; source <(zone completion zsh); echo re''ady\n"
    os.write(ours, script.encode())
    until(b"ready")
    os.write(ours, b"zone inspect --format json wor\t | grep -c '\"name\": \"work''er\"'\n")
    until(b"\n1")
    os.write(ours, b"exit\n")
    process.wait(120)
    os.close(ours)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_ones_their_shell_can_read(name: str, tmp_path: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"needs {name} (Debian package {name})")
    (tmp_path / "script").write_text(SCRIPTS[name])
    subprocess.run([name, "-n", tmp_path / "script"], check=True, timeout=120)
