"""A directory of the host shared with one zone: a file server that speaks 9P2000.L to the zone's kernel.

Takes: a descriptor of a directory, whether it may be written to, limits; whole 9P messages, of which none is believed.
Gives: server.Server: handle(message) is the whole reply, close() lets go of every descriptor. No transport is in here.
Needs: /proc/self/fd when it is made (itself.py), and Limits.fids + 2 * Limits.open_files descriptors (RLIMIT_NOFILE).
Privileges: those of who shares: root where files are to have the owners the zone gives them. The zone's kernel decides
       which of its processes may do what, as with a disk; the server decides only what the zone may do to the host.
Never: a path is followed out of the directory; a device, FIFO or socket is opened; a set-user-ID program is made.
Source: 9P2000 is intro(5) of Plan 9; .L is diod's protocol.md and net/9p/client.c, protocol.c of Linux.
"""
