"""From a container's root to the command: what a process is given and what is taken from it, in order.

The same for the first process of a container and for those run in it later.
"""

import _signal  # type: ignore[import-not-found]
import errno
import posix

from runtime.init import kernel
from runtime.init.abi import SIGKILL
from runtime.init.container import abi, accounts, calls, capabilities
from runtime.init.failure import ContainerFailure, why

MYPY = False
if MYPY:  # for annotations only: not imported in the zone
    from collections.abc import Callable

_NULL = posix.makedev(1, 3)
Step = tuple[object, ...]


class Tail:
    """Does the steps that steps.process_plan gives.

    terminal:    master and slave of its terminal, where it has one.
    given:       which of the three standard streams were given.
    first_free:  descriptors from here on are closed.
    ready:       is called when nothing but the filter and the command is left to do.
    apart:       is called when nothing is left that needs rights: goes on in another process.
    home:        of a user that was looked up, once `run` is over; else "".
    """

    def __init__(
        self,
        terminal: tuple[int, int] | None,
        *,
        given: tuple[bool, ...],
        first_free: int,
        ready: "Callable[[], None]",
        apart: "Callable[[], None] | None" = None,
    ) -> None:
        self._slave = terminal[1] if terminal else None
        self._given, self._first_free = given, first_free
        self._tell_ready, self._go_apart = ready, apart
        self._ids: tuple[int, int, list[int], bool] = (0, 0, [], False)
        self.home = ""

    def run(self, steps: list[Step]) -> None:
        """All of them. Raises ContainerFailure naming the one that failed."""
        for step in steps:
            try:
                getattr(self, f"_{step[0]}")(*step[1:])
            except OSError as error:
                reason, what = describe(step)
                raise ContainerFailure(reason, f"{what}: {error.args[1] if error.errno == 0 else why(error)}") from None
            except (OverflowError, UnicodeError) as error:
                reason, what = describe(step)
                raise ContainerFailure(reason, f"{what}: {error}") from None

    def _keyring(self) -> None:
        try:
            calls.new_session_keyring()
        except OSError as error:
            if error.errno != errno.ENOSYS:  # a kernel without keys has none to hide
                raise

    def _rlimit(self, number: int, soft: int, hard: int) -> None:
        calls.set_limit(number, soft, hard)

    def _account(self, user: str, uid: int, gid: int, groups: list[int], denied: bool) -> None:
        """Who it runs as; a name is looked up in the files of the container."""
        if user:
            root = posix.open("/", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
            try:
                passwd, group = (accounts.read_file(root, path) for path in ("etc/passwd", "etc/group"))
            finally:
                posix.close(root)
            uid, gid, groups = accounts.resolve(user, passwd, group)
            self.home = accounts.home_of(user, passwd)
        self._ids = (uid, gid, groups, denied)

    def _ceiling(self, number: int, hard: int) -> None:
        """So much that the process may set the limit itself, without rights."""
        if hard > calls.limits_of(number)[1]:
            calls.set_limit(number, hard, hard)

    def _session(self, tty: bool) -> None:
        start_session(0 if tty else None)

    def _apart(self) -> None:
        assert self._go_apart is not None
        self._go_apart()

    def _streams(self, tty: bool) -> None:
        uid = self._ids[0]
        if tty and self._slave is not None:
            # So that it can be opened again, as /dev/stdout; not where it is made, as no name is looked up by then.
            _as_user(f"giving the terminal to user {uid}", posix.fchown, self._slave, uid, -1)
        for fd in range(3):
            if tty and self._slave is not None:
                posix.dup2(self._slave, fd, inheritable=True)
            elif not self._given[fd]:
                posix.dup2(_open_null(posix.O_WRONLY if fd else posix.O_RDONLY), fd, inheritable=True)
            elif _is_private(posix.fstat(fd)):
                # So that a user other than root can open /dev/stdout again.
                try:
                    posix.fchown(fd, uid, -1)
                except PermissionError:  # from a user namespace: whoever gave it keeps it
                    continue
                except OSError as error:
                    raise ContainerFailure("user", f"giving descriptor {fd} to user {uid}: {why(error)}") from None

    def _bounding(self, mask: int) -> None:
        capabilities.drop_bounding(mask)

    def _identity(self) -> None:
        uid, gid, groups, denied = self._ids
        calls.prctl(abi.PR_SET_KEEPCAPS, 1)
        if not denied:
            _as_user(f"setting the groups {groups}", posix.setgroups, groups)
        elif set(groups) - {gid}:
            raise ContainerFailure("user", f"setting the groups {groups}: the user namespace denies setgroups")
        _as_user(f"becoming group {gid}", posix.setresgid, gid, gid, gid)
        _as_user(f"becoming user {uid}", posix.setresuid, uid, uid, uid)

    def _capabilities(self, masks: dict[str, int]) -> None:
        capabilities.apply(masks)
        calls.prctl(abi.PR_SET_KEEPCAPS, 0)

    def _umask(self, mask: int) -> None:
        posix.umask(mask)

    def _death(self) -> None:
        """Whoever watches over the container must not leave it behind. A change of ids would undo this."""
        calls.prctl(abi.PR_SET_PDEATHSIG, SIGKILL)

    def _close(self) -> None:
        kernel.close_from(self._first_free)

    def _cwd(self, path: str) -> None:
        posix.chdir(path)
        if not posix.getcwd().startswith("/"):
            raise ContainerFailure("cwd", f"working directory {path!r} lies outside the root")

    def _no_new_privileges(self) -> None:
        kernel.no_new_privileges()

    def _signals(self) -> None:
        for number in (
            _signal.SIGPIPE,
            _signal.SIGXFSZ,
        ):  # what an interpreter may ignore, a program does not expect to
            _signal.signal(number, _signal.SIG_DFL)
        kernel.block_signals(())

    def _ready(self) -> None:
        self._tell_ready()

    def _seccomp(self, program: bytes, flags: int) -> None:
        calls.install_filter(program, flags | abi.SECCOMP_FILTER_FLAG_TSYNC)


def start_session(slave: int | None) -> None:
    """A session of its own, with a terminal where there is one."""
    posix.setsid()
    if slave is not None:
        kernel.controlling_terminal(slave)


def _open_null(access: int) -> int:
    """/dev/null of the container, which may have put anything in its place by the time of a later process.

    A symlink into /proc/self/fd would lead to a directory of the zone that is still open here, and a fifo would block.
    """
    flags = access | posix.O_NONBLOCK | posix.O_NOCTTY
    null = kernel.open_in(posix.open("/", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC), "dev/null", flags)
    status = posix.fstat(null)
    if status.st_mode & abi.S_IFMT != abi.S_IFCHR or status.st_rdev != _NULL:
        raise ContainerFailure("process", "/dev/null of the container: expected the device 1:3, got something else")
    posix.set_blocking(null, True)
    return null


def _as_user(what: str, action: "Callable[..., object]", *arguments: object) -> None:
    try:
        action(*arguments)
    except OSError as error:
        raise ContainerFailure("user", f"{what}: {why(error)}") from None


def _is_private(status: posix.stat_result) -> bool:
    """Pipes, sockets and terminals were made for this process; a device or a file may be everybody's."""
    kind = status.st_mode & abi.S_IFMT
    return kind in (abi.S_IFIFO, abi.S_IFSOCK) or (kind == abi.S_IFCHR and status.st_rdev != _NULL)


def describe(step: Step) -> tuple[str, str]:
    """(reason, what was being done) of a step, for its failure."""
    kind, *rest = step
    texts = {
        "keyring": ("process", "joining a keyring of its own"),
        "rlimit": ("rlimit", "setting rlimit {0} to {1}, {2}"),
        "ceiling": ("rlimit", "raising rlimit {0} to {1}"),
        "account": ("user", "looking up user {0!r}"),
        "session": ("terminal", "starting a session"),
        "streams": ("process", "opening the standard streams"),
        "bounding": ("capabilities", "dropping capabilities from the bounding set"),
        "identity": ("user", "changing the user"),
        "capabilities": ("capabilities", "setting the capabilities"),
        "umask": ("process", "setting the umask"),
        "apart": ("namespace", "forking in the container"),
        "death": ("process", "asking to be killed with its parent"),
        "close": ("process", "closing descriptors"),
        "cwd": ("cwd", "working directory {0!r}"),
        "no_new_privileges": ("process", "setting no_new_privs"),
        "signals": ("process", "unblocking signals"),
        "ready": ("process", "telling that it is ready"),
        "seccomp": ("seccomp", "installing the seccomp filter"),
    }
    reason, text = texts[str(kind)]
    return reason, text.format(*rest)
