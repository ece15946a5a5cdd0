"""Image config and spec become one process."""

from __future__ import annotations

import pytest

from pipeline.bundle.errors import BadImageConfig, BadSpec, NoSuchUser
from pipeline.bundle.process import resolve_process
from pipeline.bundle.spec import parse_spec

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\nodd:x:7:8::/odd:\n"
GROUP = b"root:x:0:\nwww:x:33:\nlog:x:50:www,odd\nssl:x:51:www\n"


def process(spec: dict[str, object], **config: object):
    zone = parse_spec("web", {"image": "recipe:x", **spec}, subject="web.toml")
    return resolve_process(zone, {"config": {"Entrypoint": ["/e"], **config}}, passwd=PASSWD, group=GROUP)


def test_cmd_follows_entrypoint_and_args_replace_it():
    assert process({}, Cmd=["a", "b"]).argv == ("/e", "a", "b")
    assert process({"args": ["z"]}, Cmd=["a"]).argv == ("/e", "z")


def test_command_drops_the_images_cmd():
    assert process({"command": ["/bin/sh"]}, Cmd=["a"]).argv == ("/bin/sh",)


def test_neither_entrypoint_nor_cmd_is_refused_with_a_hint():
    with pytest.raises(BadImageConfig, match="expected an Entrypoint or Cmd, got neither"):
        process({}, Entrypoint=[])


def test_spec_env_wins_and_path_and_home_are_always_there():
    env = dict(text.split("=", 1) for text in process({"env": {"A": "spec"}}, Env=["A=image", "B=1"], User="www").env)
    assert env["A"] == "spec" and env["B"] == "1"
    assert env["PATH"].startswith("/usr/local/sbin") and env["HOME"] == "/var/www" and env["HOSTNAME"] == "web"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, (0,))),
        ("www", (33, 33, (33, 50, 51))),
        ("33", (33, 33, (33, 50, 51))),
        ("www:log", (33, 50, (50,))),
        ("1000", (1000, 0, (0,))),
        ("1000:1001", (1000, 1001, (1001,))),
        ("odd", (7, 8, (8, 50))),
    ],
)
def test_users_resolve_from_the_images_own_files(user, expected):
    resolved = process({}, User=user)
    assert (resolved.uid, resolved.gid, resolved.groups) == expected


@pytest.mark.parametrize(
    ("spec", "image", "seconds"),
    [({}, {}, 10), ({}, {"StopTimeout": 45}, 45), ({}, {"StopTimeout": 0}, 0), ({"stop": {"timeout_s": 3}}, {}, 3)]
    + [({"stop": {"timeout_s": 0}}, {"StopTimeout": timeout}, 0) for timeout in (45, -1)],
)
def test_time_to_stop_is_the_specs_else_the_images(spec, image, seconds):
    assert process(spec, **image).stop_timeout_s == seconds


@pytest.mark.parametrize("timeout", [-1, 3601, 1.5, "10", True])
def test_time_to_stop_that_no_zone_has_is_refused(timeout):
    with pytest.raises(BadImageConfig, match="expected 0 to 3600 seconds as StopTimeout, got"):
        process({}, StopTimeout=timeout)


@pytest.mark.parametrize("user", ["nobody", "www:nogroup", "-1", "4294967295", "4294967296", "0:-1"])
def test_unknown_or_impossible_users_are_refused(user):
    with pytest.raises(NoSuchUser):
        process({}, User=user)


@pytest.mark.parametrize(
    "user", ["9" * 5000, "0:" + "9" * 5000, "\ud800", "0:\ud800"], ids=["uid", "gid", "name", "group"]
)
def test_users_that_neither_int_nor_utf_8_take_are_refused_as_any_other(user):
    with pytest.raises(NoSuchUser, match=r"expected (a number or a name|at most)") as caught:
        process({}, User=user)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_numbers_of_users_may_begin_with_zeros():
    assert process({}, User="0" * 5000 + "33").uid == 33


@pytest.mark.parametrize("workdir", ["/proc/self/fd/7", "proc/self/fd/7", "/a\0b"])
def test_workdir_that_could_leave_the_root_is_refused(workdir):
    with pytest.raises(BadImageConfig, match="WorkingDir"):
        process({}, WorkingDir=workdir)


def test_env_without_equals_sign_is_refused():
    with pytest.raises(BadImageConfig, match="KEY=VALUE"):
        process({}, Env=["PATH"])


def test_stop_signal_by_name_number_and_realtime_offset():
    assert process({}, StopSignal="SIGQUIT").stop_signal == 3
    assert process({}, StopSignal="9").stop_signal == 9
    assert process({}, StopSignal="SIGRTMIN+3").stop_signal == 37
    assert process({"stop": {"signal": "TERM"}}, StopSignal="SIGQUIT").stop_signal == 15
    with pytest.raises(BadSpec, match="a signal such as SIGTERM"):
        process({}, StopSignal="SIGBOGUS")
