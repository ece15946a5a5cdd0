"""`zone run`, `zone boot`: what is asked of the pipeline and of zoned, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from support.fakerefusals import Refused
from support.tinybundles import install

from pipeline import compose
from pipeline.bundle import manifest
from pipeline.bundle.limits import RLIM_INFINITY
from pipeline.bundle.model import Capabilities, Confinement, HealthWish, Network, Port, RestartPolicy, Seccomp, Volume
from pipeline.bundle.spec import ZoneSpec
from pipeline.env import Env
from pipeline.errors import SentenceError
from pipeline.store import Store
from runtime.host.cli.parsers import Parser
from runtime.host.cli.run import fill_run
from runtime.host.cli.runspec import name_of, spec_of

pytestmark = pytest.mark.usefixtures("programs")


def spec(*words: str) -> ZoneSpec:
    parser = Parser(prog="zone run")
    fill_run(parser)
    return spec_of(parser.parse_args(words))


def test_defaults_are_the_images_and_ours() -> None:
    made = spec("nginx")
    assert made == ZoneSpec(name=made.name, image="nginx", hostname=made.name)
    assert made.name.startswith("nginx-") and len(made.name) == len("nginx-3fa2")


def test_engine_of_its_network_reaches_the_spec() -> None:
    assert spec("--network-engine", "pasta", "nginx").network == Network(engine="pasta")
    assert spec("nginx").network.engine == ""


def test_every_option_reaches_the_spec() -> None:
    options = (
        "-it -u 33:33 -w /srv -e A=1 -p 127.0.0.2:8080:80 -v tmpfs:/x:size=8m -m 1g --memory-max 2g -c 2 --cpus-max 4"
    )
    options += " --name web --hostname www --restart on-failure:3 --read-only -l tier=front -l bare --kernel recipe:k"
    options += " --extension oci:a --extension oci:b --stop-signal QUIT --stop-timeout 3"
    options += " --security-opt seccomp=unconfined --health-interval 1m30s --health-timeout 500ms --health-retries 2"
    options += " --health-start-period 0s --health-start-interval 2s --health-cmd true"
    options += " --bandwidth 1.5mbit --scratch 2g --network back --mtu 9000 --ip fd5a:6f6e:6577:9::0007"
    options += " --dns 192.0.2.53 --dns 2001:db8::53 --dns-search example.org --dns-option ndots:2 --dns-option use-vc"
    rules = ("--egress", "allow 192.0.2.0/24  443", "--egress", "deny any")
    made = spec(*options.split(), *rules, "nginx", "-g", "daemon off;")
    assert (made.tty, made.stdin_open, made.user, made.workdir, made.env) == (True, True, "33:33", "/srv", {"A": "1"})
    assert (made.ports[0].host_address, made.ports[0].host_port, made.ports[0].zone_port) == ("127.0.0.2", 8080, 80)
    assert made.volumes == (Volume("/x", size_mib=8),)
    assert (made.scratch, made.scratch_mib) == ("", 2048)
    resources = made.resources
    assert (resources.memory_mib, resources.memory_max_mib, resources.vcpus, resources.vcpus_max) == (1024, 2048, 2, 4)
    assert (made.name, made.hostname, made.restart) == ("web", "www", RestartPolicy("on-failure", 3))
    assert (made.readonly_root, made.labels, made.kernel) == (True, {"tier": "front", "bare": ""}, "recipe:k")
    assert [choice.image for choice in made.extensions] == ["oci:a", "oci:b"]
    assert (made.stop_signal, made.stop_timeout_s) == (signal.SIGQUIT, 3)
    network = Network(
        mtu=9000,
        nameservers=("192.0.2.53", "2001:db8::53"),
        search=("example.org",),
        options=("ndots:2", "use-vc"),
        egress=("allow 192.0.2.0/24 443", "deny any"),
        bandwidth_bit_s=1_500_000,
        name="back",
        address="fd5a:6f6e:6577:9::7",
    )
    assert made.network == network
    assert made.seccomp == Seccomp(unconfined=True)
    assert made.health == HealthWish(False, None, "true", 90.0, 0.5, 0.0, 2.0, 2)
    assert (made.command, made.args) == (None, ("-g", "daemon off;"))


def test_every_form_of_a_port_reaches_the_spec() -> None:
    words = ["-p", "53:53", "-p", "53:53/udp", "-p", "0.0.0.0:8000-8001:9000-9001", "-p", "70-71/udp"]
    assert spec(*words, "x").ports == (
        Port("127.0.0.1", 53, 53),
        Port("127.0.0.1", 53, 53, "udp"),
        Port("0.0.0.0", 8000, 9000),
        Port("0.0.0.0", 8001, 9001),
        Port("127.0.0.1", 0, 70, "udp"),
        Port("127.0.0.1", 0, 71, "udp"),
    )


def test_what_the_workload_may_do_and_use_reaches_the_spec() -> None:
    options = "--cap-drop ALL --cap-add net_admin --cap-add CAP_KILL --security-opt no-new-privileges=false --init"
    options += " --pid own --userns own --cgroupns zone --pids-limit 64 --cpu-quota 20000 --cpuset-cpus 0-1"
    options += " --limit memory.max=64m --limit io.weight=50 --ulimit nofile=1024:4096 --ulimit core=-1"
    made = spec(*options.split(), "--sysctl", "vm.swappiness=10", "--sysctl", "kernel.sem=1 2 3 4", "x")
    strict = {"uid_maps": [[0, 65536, 65536]], "gid_maps": [[0, 65536, 65536]]}
    assert made.confinement == Confinement(
        Capabilities(("NET_ADMIN", "KILL")),
        no_new_privs=False,
        namespaces={"pid": "own", "user": strict, "cgroup": "zone"},
        limits={
            "pids.max": "64",
            "cpu.max": "20000 100000",
            "cpuset.cpus": "0-1",
            "memory.max": str(64 << 20),
            "io.weight": "50",
        },
        rlimits={"nofile": (1024, 4096), "core": (RLIM_INFINITY, RLIM_INFINITY)},
        init=True,
    )
    assert made.sysctls == {"vm.swappiness": "10", "kernel.sem": "1 2 3 4"}
    short = spec("--pids-limit", "-1", "--cpu-quota", "5000", "--cpu-period", "10000", "x").confinement
    assert short is not None and short.limits == {"pids.max": "max", "cpu.max": "5000 10000"}
    assert spec("--security-opt", "no-new-privileges", "x").confinement == Confinement(no_new_privs=True)
    assert spec("--security-opt", "refuse=exec,cp", "x").confinement == Confinement(refuse=("cp", "exec"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--cap-add NET_ADMN", r"key security.capabilities.add\[0\]: .*got 'NET_ADMN' \(did you mean NET_ADMIN\?\)"),
        ("--cap-add KILL --cap-drop KILL", "key security.capabilities.drop: expected others than those that are added"),
        ("--pids-limit 0", "key limits.pids.max: expected a number of processes from 1 on, or max, got '0'"),
        ("--cpu-period 1000", "--cpu-period: expected --cpu-quota beside it, got none"),
        ("--cpu-quota 10", "key limits.cpu.max: expected .* the quota at least 1000, .* got '10 100000'"),
        ("--limit memory.max=64", "key limits.memory.max: expected a size such as 64m or 1g, or max, got '64'"),
        ("--limit memory.mx=64m", r"--limit 'memory.mx=64m': .* \(did you mean memory.max\?\)"),
        ("--limit io.max=", "key limits.io.max: expected a device such as xvda or 202:0 and its .*, got ''"),
        (f"--ulimit nofile={'1' * 5000}", "--ulimit nofile: expected a number, or soft and hard"),
        ("--limit pids.max=9 --pids-limit 8", "--limit: expected pids.max once, got pids.max=9 again"),
        ("--ulimit nofile=4096:1024", "--ulimit nofile: expected a number, or soft and hard, soft not above hard"),
        ("--ulimit nofiles=1", r"--ulimit 'nofiles=1': .* \(did you mean nofile\?\)"),
        ("--sysctl swappiness=1", "--sysctl 'swappiness=1': expected KEY=VALUE such as vm.swappiness=10"),
        ("--security-opt no-new-privileges=x", "--security-opt 'no-new-privileges=x': expected seccomp=unconfined"),
        ("--init --pid zone", "key init: expected security.namespaces.pid own beside it"),
    ],
)
def test_wrong_confinement_names_the_option_or_the_key(words: str, said: str) -> None:
    with pytest.raises(SentenceError, match=said):
        spec(*words.split(), "x")


def test_no_healthcheck_is_none_not_even_the_images() -> None:
    assert spec("--no-healthcheck", "x").health == HealthWish(disable=True)


@pytest.mark.parametrize(
    ("words", "command", "args"),
    [
        (["x"], None, None),
        (["x", "a", "--rm"], None, ("a", "--rm")),
        (["x", "--", "a"], None, ("a",)),
        (["--entrypoint", "sh", "x", "-c", "true"], ("sh", "-c", "true"), None),
        (["--entrypoint", "sh", "x"], ("sh",), None),
        (["--entrypoint", "", "x", "true"], ("true",), None),
    ],
)
def test_command_replaces_cmd_and_entrypoint_drops_it(words, command, args) -> None:
    made = spec(*words)
    assert (made.command, made.args) == (command, args)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nginx:1.27", "nginx"),
        ("docker://127.0.0.1:5000/a/app_x:1", "app-x"),
        ("127.0.0.1:5000/app", "app"),
        ("recipe:nginx", "nginx"),
        ("oci:/srv/image:tag", "image"),
        ("oci-archive:/x/y.tar", "y"),
        ("recipe/nginx", "nginx"),
    ],
)
def test_name_is_made_of_the_images(image: str, name: str) -> None:
    assert name_of(image)[:-5] == name and name_of(image) != name_of(image)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--name", "a b", "x"), "--name 'a b': expected letters"),
        (("--hostname", "a_b", "x"), "--hostname 'a_b'"),
        (("--rm", "--restart", "always", "x"), "--rm: expected no --restart beside it"),
        (("--memory-max", "64m", "x"), "resources.memory_max_mib: expected at least 256"),
        (("-p", "80/sctp", "x"), "expected a port rule"),
        (("-p", "80-81:80", "x"), "as many ports of the host as of the zone, got 2 for 1"),
        (("-p", "1:1", "-p", "1:2", "x"), "each host port once"),
        (("-v", "srv:/host:dir", "x"), "the absolute path of a directory of the zone's host, got 'srv'"),
        (("--scratch", "8m", "x"), "key root.scratch: expected 16 MiB to 16 TiB, got '8m'"),
        (("--scratch", "disk.img", "x"), "key root.scratch: expected a size such as 512m, or a block device"),
        (("--bandwidth", "100m", "x"), "key network.bandwidth: expected a rate such as 100mbit"),
        (("--network-engine", "slirp", "x"), "key network.engine: expected splice or pasta"),
        (
            ("--network-engine", "pasta", "--network", "back", "x"),
            "key network.engine: expected engine splice beside network.name: pasta is for a private network, got pasta",
        ),
        (("--dns", "dns.example.org", "x"), "key dns.nameservers: expected an IPv4 or IPv6 address"),
        (("--dns-search", "a b", "x"), "key dns.search: expected a domain name, got 'a b'"),
        (("--dns-option", "ndots=2", "x"), "key dns.options: expected an option such as ndots:2"),
        ((*("--dns", "192.0.2.1") * 4, "x"), "key dns.nameservers: expected 3 at most, got 4"),
        (("--egress", "allow example.org", "x"), "network.egress[0]: expected any, an address, or a network"),
        (
            ("--security-opt", "apparmor=x", "x"),
            "--security-opt 'apparmor=x': expected seccomp=unconfined, seccomp=FILE, no-new-privileges",
        ),
        (("--security-opt", "seccomp=a", "--security-opt", "seccomp=b", "x"), "expected seccomp once"),
        (("--security-opt", "seccomp=/nowhere.json", "x"), "security.seccomp: expected unconfined, or a file"),
        (("--no-healthcheck", "--health-cmd", "x", "x"), "--no-healthcheck: expected no --health option beside it"),
        (("--health-cmd", "", "x"), "--health-cmd: expected a command"),
        (("--health-interval", "0s", "x"), "--health-interval: expected a time from 1ms"),
        (("--health-start-period", "400d", "x"), "--health-start-period: expected a time"),
        (("--health-retries", "0", "x"), "--health-retries: expected 1 to 1000"),
        (("-w", "srv", "x"), "--workdir: expected an absolute path"),
        (("-e", "=x", "x"), "expected KEY=VALUE"),
        (("--env-file", "/nowhere", "x"), "--env-file /nowhere: expected a text file"),
        (("--stop-signal", "HOP", "x"), "--stop-signal: expected a signal"),
        (("Bad//Ref",), "image reference"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_said_before_any_work(zone, zoned, words: tuple[str, ...], said: str) -> None:
    assert said in zone.sentence("run", *words, code=125)
    assert zoned.calls == [] and not list(Store().results.glob("*"))


@pytest.fixture
def composed(monkeypatch) -> list[tuple[ZoneSpec, str]]:
    """The pipeline, replaced by one that notes what it is asked and makes tiny parts."""
    return install(monkeypatch.setattr)


def boot_of(zoned) -> object:
    (request,) = [message for method, message in zoned.calls if method == "BootZone"]
    return request


def test_detached_prints_the_name_once_the_workload_runs(zone, zoned, composed) -> None:
    assert zone("run", "-d", "--name", "web", "-l", "a=b", "--pull", "never", "nginx") == "web\n"
    assert zoned.zones["web"].state == "ready" and composed[0][1] == "never"
    request = boot_of(zoned)
    assert (
        request.fresh
        and request.until_ready
        and not request.until_ports_answer
        and not request.remove
        and request.labels["a"] == "b"
    )
    assert manifest.TAG_PREFIX + "web" not in Store().tags()


def test_attached_shows_the_output_and_is_the_exit_code(zone, zoned, composed) -> None:
    zoned.programs["job"] = zoned.programs["both"]
    assert zone("run", "--name", "job", "x", code=3).startswith("out")
    assert zone.err == "err\n" and zoned.zones["job"].exit.code == 3


def test_workload_that_has_ended_before_it_could_be_attached_to_is_shown_all_the_same(zone, zoned, composed) -> None:
    zoned.end_at_once = b"quick\n"
    assert zone("run", "--name", "job", "x", code=4) == "quick\n"


def test_rm_leaves_no_zone(zone, zoned, composed) -> None:
    zoned.programs["job"] = zoned.programs["both"]
    zone("run", "--rm", "--name", "job", "x", code=3)
    assert boot_of(zoned).remove and zoned.zones == {}


def test_rm_of_a_workload_that_has_ended_before_it_could_be_attached_to(zone, zoned, composed) -> None:
    zoned.end_at_once = b"quick\n"
    assert zone("run", "--rm", "--name", "job", "x", code=4) == "quick\n"
    assert boot_of(zoned).remove and boot_of(zoned).attach and zoned.zones == {}


def test_ports_are_asked_for_with_their_protocols(zone, zoned, composed) -> None:
    zone("run", "-d", "--name", "dns", "-p", "53:53", "-p", "53:53/udp", "-p", "80", "x")
    asked = [(rule.host_port, rule.port, rule.zone_port, rule.protocol) for rule in boot_of(zoned).ports]
    assert asked == [(53, 53, 53, "tcp"), (53, 53, 53, "udp"), (0, 0, 80, "tcp")]


@pytest.mark.parametrize("detach", [True, False], ids=["detached", "attached"])
@pytest.mark.parametrize(("words", "asked"), [((), 300.0), (("--timeout", "0"), 0.0), (("--timeout", "20"), 20.0)])
def test_workload_has_a_time_to_start_in(zone, zoned, composed, words, asked: float, detach: bool) -> None:
    zoned.end_at_once = b"" if detach else b"quick\n"
    zone("run", *(["-d"] if detach else []), *words, "--name", "web", "x", code=0 if detach else 4)
    assert boot_of(zoned).start_timeout_s == asked


@pytest.mark.parametrize("words", [("run", "--timeout", "-1", "x"), ("boot", "--timeout", "soon", "web")])
def test_time_to_start_in_that_is_none_is_misuse(zone, words) -> None:
    assert "expected a number of seconds" in zone.sentence(*words, code=2)


def test_nobody_waits_for_the_attach_of_a_detached_run(zone, zoned, composed) -> None:
    zone("run", "-d", "--rm", "--name", "web", "x")
    assert not boot_of(zoned).attach


def test_failures_of_our_own_are_125(zone, zoned, composed) -> None:
    assert "no such image" in zone.sentence("run", "missing", code=125)
    zoned.boot_error = Refused("zone job", expected="128 MiB free", got="12 MiB")
    assert "zone job: expected 128 MiB free, got 12 MiB" in zone.sentence("run", "--name", "job", "x", code=125)


def test_command_that_is_not_there_is_127(zone, zoned, composed) -> None:
    async def nowhere(run) -> int:
        return 127

    zoned.programs["job"] = nowhere
    zone("run", "--name", "job", "x", "nowhere", code=127)


RUN = """
import sys
sys.path[:0] = [{tests!r}]
from support.tinybundles import install
install()
from runtime.host.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def start_run(start):
    """`zone run` as a process of its own, with the tiny pipeline."""
    tests = str(Path(__file__).resolve().parents[3])

    def begin(*words: str, **options: object):
        return start(*words, code=RUN.format(tests=tests), **options)

    return begin


def test_input_from_a_file_reaches_the_workload(zoned, start_run, tmp_path) -> None:
    zoned.programs["job"] = zoned.programs["cat"]
    (tmp_path / "in").write_bytes(os.urandom(100_000))
    with open(tmp_path / "in", "rb") as file:
        process = start_run("run", "-i", "--rm", "--name", "job", "x", stdin=file)
        out, err = process.communicate(timeout=120)
    assert out == (tmp_path / "in").read_bytes() and process.returncode == 0, err


def test_signals_reach_the_workload(zoned, start_run, programs) -> None:
    zoned.programs["job"] = zoned.programs["wait"]
    process = start_run("run", "--name", "job", "x")
    assert programs.wait(120)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 128 + signal.SIGTERM


def test_terminal_and_ctrl_bracket_leave_the_zone_running(zoned, start_run) -> None:
    zoned.programs["shell"] = zoned.programs["terminal"]
    ours, theirs = pty.openpty()
    process = start_run("run", "-it", "--name", "shell", "x", stdin=theirs, stdout=theirs, stderr=theirs)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([ours], [], [], 120)[0], seen
            seen += os.read(ours, 4096)

    until(b"$ ")
    os.write(ours, b"size\r")
    until(b"24x80\r\n")
    os.write(ours, b"\x1d")
    until(b"left zone shell running; zone attach shell comes back")
    assert process.wait(120) == 0
    os.close(ours)
    os.close(theirs)
    assert zoned.zones["shell"].state == "ready" and zoned.zones["shell"].tty


def test_interrupt_while_it_boots_ends_the_zone(zoned, start_run) -> None:
    zoned.hold_boots = True
    process = start_run("run", "-d", "--name", "job", "x")

    async def booting() -> None:
        while not any(method == "BootZone" for method, _ in zoned.calls):
            await zoned.called.wait()

    zoned.wait(booting())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, (out, err)
    zoned.wait(zoned.until(lambda: zoned.cancelled_boots == ["job"]))


def test_boot_says_where_it_answers(zone, zoned, composed, monkeypatch) -> None:
    env = Env(Store())
    bundle = compose.compose(ZoneSpec("web", "x"), env, pull="missing").bundle
    manifest.write(env.store, bundle)
    assert zone("boot", "web") == "zone web is up: 10.75.0.2/16\n"
    assert "it runs already" in zone.sentence("boot", "web")


def test_boot_has_the_rules_of_the_bundle_or_those_it_was_given(zone, zoned, composed) -> None:
    env = Env(Store())
    bundle = compose.compose(ZoneSpec("web", "x"), env, pull="missing").bundle
    manifest.write(env.store, replace(bundle, network=Network(egress=("deny any 25",))))
    zone("boot", "web")
    assert json.loads(boot_of(zoned).bundle)["network"]["egress"] == ["deny any 25"]
    zoned.zones.clear()
    zoned.calls.clear()
    zone("boot", "--egress", "deny any", "--bandwidth", "2gbit", "web")
    network = json.loads(boot_of(zoned).bundle)["network"]
    assert (network["egress"], network["bandwidth_bit_s"]) == (["deny any"], 2_000_000_000)
    assert "--egress[0]: expected a port" in zone.sentence("boot", "--egress", "deny any x", "web")


def test_boot_has_the_scratch_it_was_given(zone, zoned, composed) -> None:
    env = Env(Store())
    manifest.write(env.store, compose.compose(ZoneSpec("web", "x"), env, pull="missing").bundle)
    zone("boot", "--scratch", "512m", "web")
    assert json.loads(boot_of(zoned).bundle)["scratch_mib"] == 512
    assert "--scratch: expected a size such as 512m" in zone.sentence("boot", "--scratch", "x", "web")


def test_boot_of_what_nobody_built_names_near_ones(zone, zoned, composed) -> None:
    env = Env(Store())
    manifest.write(env.store, compose.compose(ZoneSpec("shop", "x"), env, pull="missing").bundle)
    assert "built zone 'shpo': no such built zone (did you mean shop?)" in zone.sentence("boot", "shpo")
    assert zoned.calls == []
