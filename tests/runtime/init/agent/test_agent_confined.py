"""Init and agent beside a workload that shares their process ids, and the namespaces that a spec gives a workload."""

import os

import pytest
from support import zonebox
from support.namespaces import require_user_namespaces
from support.zonebox import IDLE, sh

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts"),
]
# Tries to look at pid 1 and its child, to open their memory, and to attach to them (ptrace is 101); says the errors.
TRACER = """open(F,"/proc/1/task/1/children");($a)=split(/ /,<F>);%p=("init",1,"agent",$a);
for(qw(init agent)){readlink("/proc/$p{$_}/exe")and$!=0;print"$_ ",$!+0," "}print";";
for(qw(init agent)){open(M,"+<","/proc/$p{$_}/mem")and$!=0;print"$_ ",$!+0," "}print";";
for(qw(init agent)){$!=0;$r=syscall(101,16,int($p{$_}),0,0);print"$_ $r ",$!+0," "}"""

# Opens the memory of whatever comes, as a debugger does, and says once each what rights it then had.
DEBUGGER = r"""$|=1; print "up\n"; while (1) { opendir D, "/proc"; for $p (grep /^\d+$/ && $_ != $$, readdir D) {
    open(M, "+<", "/proc/$p/mem") or next; open(S, "/proc/$p/status") or next;
    for (<S>) { /^CapEff:\s*(\w+)/ and !$seen{$1}++ and print "$1\n" } close M } }"""


def test_init_and_agent_live_in_a_root_of_their_own(zone):
    zone.host.hello()
    assert sorted(os.listdir(f"/proc/{zone.init_pid}/root")) == ["bin", "containers", "dev", "proc", "sys"]
    assert os.readlink(f"/proc/{zone.init_pid}/exe").endswith(" (deleted)")
    assert zone.host.run(["ls", "/proc/1/root/containers"]).result["ok"]["exit"] == {"code": 2}


def test_init_and_agent_cannot_be_traced_even_where_their_process_ids_are_shared(start):
    zone = start(IDLE, extra={"container": {"namespaces": {"pid": "zone"}}})
    exe, mem, attach = zone.host.run(["perl", "-e", TRACER]).data[1].decode().split(";")
    assert exe == mem == "init 13 agent 13 " and attach == "init -1 1 agent -1 1 "
    assert zone.host.call("ping")


@pytest.mark.parametrize(
    ("namespaces", "said"),
    [
        ('user = "own"', ["0 65536 65536", "nobody", "own pid", "own ipc"]),
        ("user = { uid_maps = [[0, 0, 9]], gid_maps = [[0, 0, 9]] }", ["0 0 9", "root", "own pid", "own ipc"]),
        ('pid = "zone", ipc = "zone", cgroup = "zone"', ["0 0 4294967295", "root", "zone pid", "zone ipc"]),
        ("time = { boottime = 360000 }", ["0 0 4294967295", "root", "own pid", "own ipc", "later"]),
    ],
)
def test_namespaces_of_the_workload_are_its_own_or_the_zones_as_its_spec_says(start, namespaces, said):
    if "user" in namespaces:
        require_user_namespaces()
    text = f"[security]\nnamespaces = {{ {namespaces} }}"
    script = """read a b c </proc/self/uid_map; echo $a $b $c; touch /x 2>/dev/null && echo root || echo nobody
        [ $$ = 1 ] && echo own pid || echo zone pid
        [ $(cat /proc/sys/kernel/msgmax) = 4000 ] && echo own ipc || echo zone ipc
        read up rest </proc/uptime; [ ${up%.*} -lt 360000 ] || echo later; read x"""
    container = zonebox.confined(text, sysctls={"kernel.msgmax": "4000"})
    zone = start(sh(script), extra={"stdin_open": True, "container": container})
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: logs.data[1].count(b"\n") == len(said))
    assert logs.data[1].decode().splitlines() == said


def test_a_container_that_may_trace_sees_nobody_enter_it_with_more_rights_than_its_own(start):
    """CVE-2016-9962: with CAP_SYS_PTRACE, nothing keeps it from the memory of what is in its pid namespace."""
    container = zonebox.confined('[security]\ncapabilities = { add = ["SYS_PTRACE"] }')
    zone = start({"argv": ["perl", "-e", DEBUGGER]}, extra={"container": container})
    logs = zone.host.open("logs", container="main")
    zone.host.until(lambda: logs.data[1].startswith(b"up\n"))
    own = zone.host.run(["perl", "-ne", "/^CapEff:\\s*(\\w+)/ and print $1", "/proc/self/status"]).data[1]
    for _ in range(20):
        zone.host.run(["sleep", "0"])
    zone.host.run(["sleep", "0.5"])
    assert logs.data[1] == b"up\n" + own + b"\n"
