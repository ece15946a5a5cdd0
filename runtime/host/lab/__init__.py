"""The lab: the real Xen and a Debian dom0 inside QEMU, for machines without Xen. Needs no root.

lab.Lab is the door. config: its settings. qemu: the argument list. codedisk, snapshot: what it starts from. process,
state: what runs and what it leaves on disk. qmp, disks, ports, statefile: changing the running one. channel: calls of
dom0's agent. keys, reach, zoned: the way to its zoned. probe: will KVM do?
"""
