"""What zoned keeps of root's capabilities, and with it every program that it starts.

Hypercalls take none of them: Xen asks which domain calls, and the files below /dev/xen who opened them.
"""

from __future__ import annotations

from runtime import capabilities

# By its number in linux/capability.h: what takes it.
NEEDED = {
    0: "CHOWN: the directories of the users whose processes read images",
    1: "DAC_OVERRIDE: files of those users, and of whoever's store it is",
    3: "FOWNER: their modes",
    4: "FSETID: set-group-ID directories that a zone makes in a directory it has of this host",
    5: "KILL: engines, and processes that read images, have users of their own",
    6: "SETGID: to become those",
    7: "SETUID: likewise; the id maps of networks' namespaces",
    8: "SETPCAP: engines empty their bounding set",
    10: "NET_BIND_SERVICE: published ports below 1024",
    12: "NET_ADMIN: bridges, vifs, nft, tc",
    13: "NET_RAW: captures",
    14: "IPC_LOCK: pages that Xen is given must stay",
    18: "SYS_CHROOT: processes that read images",
    19: "SYS_PTRACE: which namespaces and files processes of other users have, for `check`",
    21: "SYS_ADMIN: namespaces, mounts, loop devices",
    24: "SYS_RESOURCE: limits of engines, the size of pipes",
    27: "MKNOD: the tun device of a network whose engine is pasta",
}
MASK = capabilities.mask_of(NEEDED)


def keep_needed() -> None:
    """Give up all others, for good, before the first thread; what is missing then is told by preflight."""
    capabilities.keep(NEEDED)
