"""Every command: its help, its misuse, its answer where no host is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from runtime.host.cli.commands import COMMANDS, DOCKER, parser
from runtime.host.cli.parsers import Parser
from runtime.version import VERSION


def commands(at: Parser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Parser]]:
    """Every command that does something, with the words that name it."""
    below = [action for action in at.filled()._actions if isinstance(action, argparse._SubParsersAction)]
    if not below and words:
        yield words, at
    for action in below:
        for name, child in action.choices.items():
            yield from commands(child, (*words, name))


ALL = {" ".join(words): one for words, one in commands(parser()) if words[:2] != ("completion", "words")}


def test_all_commands_there_should_be_are_there() -> None:
    wanted = (
        "boot run ps inspect logs port update stop kill start restart wait rm events attach exec cp top metrics snoop"
    )
    groups = [
        "host up",
        "host down",
        "host status",
        "host topology",
        "host console",
        "host platform",
        "host dial-stdio",
        "net ls",
        "net flows",
        "net capture",
    ]
    groups += ["system prune", "system df", "system check", "host cert client", "completion fish", "image pull"]
    assert {*wanted.split(), "snoop", *groups} <= ALL.keys()
    assert [name for name in (one.name for one in COMMANDS) if not any(key.split()[0] == name for key in ALL)] == []


@pytest.mark.parametrize("name", ALL)
def test_help_has_an_example_of_the_command_itself(name: str) -> None:
    examples = ALL[name].format_help().partition("examples:")[2]
    assert f"zone {name}" in examples or name == "host dial-stdio"


def test_words_of_docker_lead_to_commands_that_are_here() -> None:
    first = {name.split()[0] for name in ALL}
    assert not first & DOCKER.keys(), "a command here needs no hint"
    for here in DOCKER.values():
        words = here.removeprefix("zone ")
        assert words in ALL or words.split()[0] in first or words in ("./doit publish", "--version")


def test_version_is_told(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"zone {VERSION}\n"


@pytest.mark.parametrize("name", ALL)
def test_every_argument_says_what_it_is(name: str) -> None:
    silent = [action.dest for action in ALL[name]._actions if not action.help]
    assert silent == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pss",), "did you mean ps "),
        (("host", "stats"), "did you mean status?"),
        (("pull", "alpine"), "no such choice as 'pull', docker's is `zone image pull` here"),
        (("stats",), "`zone top`"),
        (("ps", "--format", "yml"), "did you mean yaml?"),
        (("ps", "--filter", "nmae=x"), "expected KEY=VALUE with a key of name, state"),
        (("logs", "--tail", "few", "web"), "expected a number of lines"),
        (("logs", "--since", "tuesday", "web"), "expected 10m"),
        (("run", "-m", "much", "x"), "expected an amount such as 256m"),
        (("run", "--mtu", "1279", "x"), "expected an MTU from 1280 to 65000 bytes, got '1279'"),
        (("run", "-c", "1.5", "x"), "expected a whole number of vCPUs"),
        (("update", "-c", "99999999999", "web"), "expected a whole number of vCPUs, at most 32, got '99999999999'"),
        (("stop", "-t", "inf", "web"), "expected a number of seconds, got 'inf'"),
        (("stop", "-t", "nan", "web"), "expected a number of seconds, got 'nan'"),
        (("stop", "-t", "-1", "web"), "expected a number of seconds, got '-1'"),
        (("restart", "-t", "soon", "web"), "expected a number of seconds, got 'soon'"),
        (("wait", "--timeout", "nan", "web"), "expected a number of seconds, got 'nan'"),
        (("top", "--interval", "0"), "expected more than 0 seconds, got '0'"),
        (("top", "--interval", "-1"), "expected a number of seconds, got '-1'"),
        (("net", "create", "--mtu", "-5", "x"), "expected an MTU from 1280 to 65000 bytes, got '-5'"),
        (("net", "create", "--mtu", "99999999999", "x"), "expected an MTU from 1280 to 65000 bytes"),
        (("host", "cert", "server", "--days", "-1", "x"), "expected 1 to 36500 days, got '-1'"),
        (("host", "cert", "client", "--days", "99999999999", "x"), "expected 1 to 36500 days, got '99999999999'"),
        (("port", "web", "http"), "expected a port such as 80"),
        (("wait",), "required: ZONE"),
        (("run", "--rm"), "required: IMAGE (zone run --help shows how)"),
        (("ps", "--fomat", "json"), "zone ps: no such option as --fomat, did you mean --format?"),
        (("run", "--privileged", "x"), "zone run: no such option as --privileged (zone run --help"),
        (("ps", "web"), "zone ps: expected no more words, got web"),
        (("net", "ls", "--host", "lab"), "--host, it stands before the command: zone --host … net ls"),
        (("exec",), "required: ZONE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_misuse_is_one_sentence_and_exit_2(zone, words: tuple[str, ...], said: str) -> None:
    assert said in zone.sentence(*words, code=2)


@pytest.mark.parametrize(
    "words",
    [("inspect", "\udcff"), ("stop", "\udcff"), ("exec", "-e", "A=\udcff", "web", "x"), ("cp", "web:/\udcff", "y")],
)
def test_bytes_that_are_no_text_are_one_sentence(zone, zoned, words: tuple[str, ...]) -> None:
    zoned.add("web")
    assert zone.sentence(*words).endswith("\\udcff': expected text in UTF-8, got other bytes")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("inspect", "web"), 1),
        (("stop", "web"), 1),
        (("exec", "web", "true"), 1),
        (("cp", "web:/x", "y"), 1),
        (("top", "--once"), 1),
        (("events",), 1),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_host_that_is_down_is_one_sentence(zone, monkeypatch, tmp_path, words: tuple[str, ...], code: int) -> None:
    monkeypatch.setenv("ZONE_HOST", f"unix:{tmp_path}/nobody.sock")
    assert "expected zoned to listen on" in zone.sentence(*words, code=code)


def test_zone_that_is_not_there_is_said_with_what_was_meant(zone, zoned) -> None:
    zoned.add("nginx")
    for words in (("inspect", "ngnix"), ("logs", "ngnix"), ("stop", "ngnix"), ("cp", "ngnix:/x", "y")):
        assert "no such zone as ngnix, did you mean nginx?" in zone.sentence(*words)
    assert "did you mean nginx?" in zone.sentence("exec", "ngnix", "true")
    assert "there are: nginx" in zone.sentence("inspect", "database")
