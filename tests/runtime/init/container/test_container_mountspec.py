"""What is decided about the mounts of a container: their order, and what their options become. No root."""

import pytest

from runtime.init.container import abi, mountspec
from runtime.init.failure import ContainerFailure


def test_a_mount_takes_the_place_of_the_default_one_but_never_of_dev():
    wanted = [
        {"destination": "/dev/shm/", "type": "tmpfs", "source": "mine", "options": ["size=1m"]},
        {"destination": "/dev", "type": "tmpfs", "source": "theirs"},
        {"destination": "/extra", "type": "tmpfs", "source": "x"},
    ]
    arranged = mountspec.arrange([mountspec.check(item, "m") for item in wanted], defaults=True)
    places = [mount["destination"] for mount in arranged]
    assert places == ["/proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/extra"]
    assert arranged[5]["source"] == "mine" and arranged[3]["type"] == "dev"
    alone = mountspec.arrange([mountspec.check(item, "m") for item in wanted], defaults=False)
    assert [mount["destination"] for mount in alone] == ["/dev", "/dev/shm", "/extra"]


def options(*words):
    return mountspec.check({"destination": "/x", "type": "tmpfs", "source": "t", "options": list(words)}, "m")


def test_options_become_flags_propagation_and_parameters():
    found = options("ro", "nosuid", "noatime", "rslave", "mode=755", "usrquota", "defaults")
    assert found["set"] == (
        abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOATIME
    )
    assert found["propagation"] == [(abi.MS_SLAVE, True)]
    assert found["parameters"] == [("mode", "755"), ("usrquota", None)]


def test_the_later_of_two_options_counts():
    assert not options("ro", "rw")["set"] & abi.MOUNT_ATTR_RDONLY and options("rw", "ro")["set"] & abi.MOUNT_ATTR_RDONLY
    assert options("noatime", "strictatime")["set"] & abi.MOUNT_ATTR__ATIME == abi.MOUNT_ATTR_STRICTATIME


def test_devices_work_on_a_mount_only_when_asked():
    assert options()["set"] & abi.MOUNT_ATTR_NODEV and not options("dev")["set"] & abi.MOUNT_ATTR_NODEV
    assert options("rro")["recursive_set"] == abi.MOUNT_ATTR_RDONLY


def test_recursive_options_set_clear_and_take_the_access_time_as_one_field():
    found = options("rro", "rnoatime")
    assert found["recursive_set"] == abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOATIME
    assert found["recursive_clear"] == abi.MOUNT_ATTR__ATIME
    found = options("rro", "rrw", "rsuid", "rstrictatime", "rrelatime")
    assert found["recursive_set"] == 0
    assert found["recursive_clear"] == abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR__ATIME
    assert options("relatime", "relatime")["clear"] == abi.MOUNT_ATTR__ATIME


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (
            {"type": "bind", "source": "/s", "options": ["rbind", "sync"]},
            "key m.options: expected options a bind mount has, got [('sync', None)]",
        ),
        (
            {"type": "tmpfs", "options": ["tmpcopyup"]},
            "key m.options: expected no copying of the image into a tmpfs, got 'tmpcopyup'",
        ),
        (
            {"type": "bind", "source": "/s", "options": ["rbind", "ridmap"]},
            "key m.options: expected no id-mapped mount, got 'ridmap'",
        ),
        (
            {"type": "tmpfs", "options": ["remount", "ro"]},
            "key m.options: expected flags with the mount they are of, got 'remount'",
        ),
    ],
)
def test_mount_options_that_are_not_done_are_refused(mount, words):
    with pytest.raises(ContainerFailure) as caught:
        mountspec.check({"destination": "/x", **mount}, "m")
    assert words in caught.value.sentence


def test_options_that_say_what_is_so_anyway_are_no_parameters():
    words = ["rbind", "async", "nomand", "nolazytime", "silent", "loud"]
    bind = {"destination": "/x", "type": "bind", "source": "/s", "options": words}
    assert mountspec.check(bind, "m")["rbind"] is True
    assert options("silent", "loud", "noiversion", "defaults")["parameters"] == []
