"""Seccomp filters: an OCI profile (linux.seccomp of config.json) compiled to classic BPF for x86-64.

    filters.compile(profile) -> bytes      struct sock_filter[], as seccomp(2) takes it
    profile.default(capabilities) -> dict  the profile a container has unless it is given another

Imports:  nothing, so that the same code is frozen into the zone's init, where `styrolite --bundle` compiles what the
          config.json of a bundle says. Zones get their filters compiled on the host.
"""
