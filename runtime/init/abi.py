"""Numbers of the Linux ABI on x86-64, each block with the header it is from."""

# arch/x86/entry/syscalls/syscall_64.tbl
SYS_IOCTL = 16
SYS_WAIT4 = 61
SYS_STATFS = 137
SYS_PIVOT_ROOT = 155
SYS_PRCTL = 157
SYS_MOUNT = 165
SYS_UMOUNT2 = 166
SYS_REBOOT = 169
SYS_UNSHARE = 272
SYS_SIGNALFD4 = 289
SYS_SETNS = 308
SYS_RT_SIGPROCMASK = 14
SYS_FINIT_MODULE = 313
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000

# include/uapi/linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

# include/uapi/linux/magic.h
RAMFS_MAGIC = 0x858458F6
TMPFS_MAGIC = 0x01021994
DEVPTS_SUPER_MAGIC = 0x1CD1

# include/uapi/linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

# include/uapi/linux/fcntl.h, asm-generic/fcntl.h
O_PATH = 0o10000000

# include/uapi/linux/reboot.h
REBOOT_MAGIC1 = 0xFEE1DEAD
REBOOT_MAGIC2 = 672274793
REBOOT_POWER_OFF = 0x4321FEDC

# include/uapi/linux/prctl.h
PR_SET_NO_NEW_PRIVS = 38

# include/uapi/asm-generic/signal.h, include/uapi/linux/signalfd.h
SIGHUP = 1
SIGINT = 2
SIGQUIT = 3
SIGKILL = 9
SIGUSR1 = 10
SIGUSR2 = 12
SIGPIPE = 13
SIGTERM = 15
SIGCHLD = 17
SIGCONT = 18
SIGWINCH = 28
SIG_BLOCK = 0
SIG_SETMASK = 2
SFD_NONBLOCK = 0o4000
SFD_CLOEXEC = 0o2000000
SIGNALFD_SIGINFO_BYTES = 128

# include/uapi/asm-generic/ioctls.h
TCGETS = 0x5401
TCSETS = 0x5402
TIOCSCTTY = 0x540E
TIOCOUTQ = 0x5411
TIOCSWINSZ = 0x5414
FIONREAD = 0x541B

# include/uapi/asm-generic/termbits.h: struct termios is four flag words, the line discipline and c_cc[19]
TERMIOS_BYTES = 36
TERMIOS_CC = 17
CS8, CREAD, CLOCAL, CSIZE = 0o60, 0o200, 0o4000, 0o60
VTIME, VMIN = 5, 6


def ioctl_bare(kind: str, number: int) -> int:
    """The request number of an ioctl without an argument, or with a plain number. Source: _IO, ioctl.h."""
    return ord(kind) << 8 | number


def ioctl_write(kind: str, number: int, size_bytes: int) -> int:
    """The request number of an ioctl that hands data to the kernel.

    Source: _IOW of include/uapi/asm-generic/ioctl.h.
    """
    return 1 << 30 | size_bytes << 16 | ord(kind) << 8 | number


# include/uapi/asm-generic/ioctls.h
TIOCSPTLCK = ioctl_write("T", 0x31, 4)
TIOCGPTPEER = ioctl_bare("T", 0x41)


# include/uapi/linux/random.h
RNDADDENTROPY = ioctl_write("R", 0x03, 8)

# include/uapi/linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h, if.h
NETLINK_ROUTE = 0
NETLINK_KOBJECT_UEVENT = 15
NLMSG_ERROR = 2
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
RTM_NEWLINK = 16
RTM_NEWADDR = 20
RTM_NEWROUTE = 24
RTM_NEWNEIGH = 28
IFF_UP = 1
IFLA_MTU = 4
IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_FLAGS = 8
IFA_F_NODAD = 0x02
IFA_F_PERMANENT = 0x80
RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PREFSRC = 7
RTA_METRICS = 8
RTAX_LOCK = 1
RTAX_RTO_MIN = 13
RT_TABLE_MAIN = 254
RTPROT_STATIC = 4
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1
RTNH_F_ONLINK = 4
# include/uapi/linux/neighbour.h
NDA_DST = 1
NDA_LLADDR = 2
NUD_REACHABLE = 0x02
NUD_NOARP = 0x40
NUD_PERMANENT = 0x80
