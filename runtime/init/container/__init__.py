"""Containers in a zone: a spec (a plain dict, as JSON gives it) is checked and planned, then the plan is applied.

    from runtime.init.container.container import Container   # and runtime.init.failure.ContainerFailure

    steps.plan(spec) -> dict          pure: the spec with its defaults, and the steps in order
    Container(id, spec, cgroups="/sys/fs/cgroup")
                                      plans it and makes its cgroup, with the limits: state "created"
    .start(stdio, find) -> Started    stdio: descriptors for 0, 1, 2, None is /dev/null; find(id) -> Container for
                                      namespaces "container:ID". State "running". Returns when the command runs
    .begin(stdio, find) -> Launch     the same for callers with a loop: .began(launch.hear) until it gives a Started
    .enter(process, stdio) -> Started a further process in it (exec); what `process` leaves out is as for the first
    .begin_further(process, stdio) -> Launch
    Started: .pid .pidfd .terminal    child of the caller, who reaps it; master of its terminal or -1; .close()
    .exited(status) -> exit           to be called with the wait status of .started.pid: {"code": n} or {"signal": n},
                                      with "oom": bool; ends what is left; state "stopped"
    .kill(signal, everyone=False)     .stop(signal=None, timeout_s=None) blocks, for callers without a loop
    .freeze(frozen=True|False)        states "paused", "running"
    .update(limits)                   .resize(rows, columns)
    .oom_kills() -> int               .cgroup.watch() -> descriptor that polls POLLPRI when memory.events changes
    .cgroup.pids(), .counts(file), .number(file)     processes and figures, numbered as in the caller's pid namespace
    .delete(force=False)              removes the cgroup and closes descriptors; mounts went with the last process

Failures are ContainerFailure(reason, sentence); after a failed start nothing runs, no mount is left, and the container
can be deleted. The caller must be root with /proc mounted, and the cgroup v2 tree of `cgroups` must be its own.

The spec (defaults in brackets; a key that is not listed is refused):

    root            path: a directory of the caller, with what is mounted in it; replace [false]: what is no directory
                    where /proc or /sys is mounted goes, as it does of a device's root | device: a disk such as "xvdc"
                    that has a squashfs, below a writable tmpfs of overlay_size_mib [0: half of the memory];
                    readonly [false]; etc [{}]: files of /etc, name -> text; directories [[]]: to be made in it
    process         argv; env [[]] "KEY=VALUE"; cwd ["/"]; uid, gid [0]; groups [[]]; user [""]: "name", "name:group", …
                    by the container's own passwd and group, instead of the three, and HOME where env has none; umask
                    [18]; tty [false]; size [none]: [rows, columns]; capabilities [containerd's]: bounding, effective,
                    permitted, inheritable, ambient, each a list of names; no_new_privileges [true]; seccomp [none]: hex
                    of a compiled filter (pipeline/seccomp); seccomp_flags [[]]; rlimits [{}: inherited]: nofile:
                    [soft, hard], …; oom_score_adj [inherited]; init [false]: a reaper as pid 1; stop_signal [15];
                    stop_timeout_s [10]
    hostname, domainname [""]: as the zone's
    namespaces      pid, uts, ipc, cgroup ["own"], net ["zone"]: own, zone, container:ID or path:/…; time ["zone"]: also
                    {monotonic, boottime} offsets in seconds; user ["zone"]: {uid_maps, gid_maps: [[inside, outside,
                    count]…], deny_setgroups [false]}. The mount namespace is always its own
    mounts [[]]     {destination, type, source, options}: options as of mount(8), bind, rbind, propagation, rro and the
                    like for recursive ones; a mount on the place of a default one replaces that, but for /dev.
                    Devices on a mount work only with the option dev, but for devpts
    default_mounts  [true]: /proc, /sys, /sys/fs/cgroup (both read-only), /dev/pts, /dev/shm, /dev/mqueue; /dev always
    devices [[]]    further nodes: {path, type, major, minor, mode}
    masked_paths, readonly_paths [containerd's]; the ways to the hypervisor are masked in any case
    propagation ["private"]: or "slave"
    limits [{}]     memory_max, memory_high, memory_low, memory_swap_max, pids_max, cpu_weight, io_weight: numbers, or
                    "max"; cpu_max: [quota_us, period_us] or "max"; cpuset_cpus, cpuset_mems: "0-1"; io_max:
                    [{device: "202:0", rbps, wbps, riops, wiops}]; unified: {file: text}
    sysctl [{}]     of an own ipc or net namespace
"""
