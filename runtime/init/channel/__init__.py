"""The agent channel's protocol, shared by both ends: the zone's agent on /dev/hvc1 and the host's link on the ring.

Takes:      bytes as they come, in pieces of any size.
Gives:      frames.Parser and the encoders, jsonwrite.dumps, credit.Credits, outbox.Outbox. None of them does I/O.
Imports:    as all of runtime/init: `_struct` and itself.

A session, as seen on the wire:
  host -> guest   4105 NULs, HELLO {"version":1,"session":HEX16}       after which the guest's parser is at a frame
  guest -> host   16 NULs, HELLO {"version":1,"session":the same,…}    one frame; the host drops all that came before
  host -> guest   CREDIT of stream 0                                   the link's credit, see below
  then            OPEN, DATA, EOF, EVENT, RESULT, CREDIT, CANCEL, NOTE as they come

An agent that begins anew may ask for a session: its greeting with the session "". A parser that lost the framing says
so (frames.LOST); the guest then tells it in a NOTE {"event":"lost","sentence":…}, and the host begins another session.

Two credits count. That of a (stream, fd) is of payload bytes, starts at 65,536 each way, and is given as the receiver
consumes. That of the link (stream 0, fd 0) is of all bytes the guest writes behind its HELLO, starts at 0, and is given
as the host takes bytes off the ring. Linux's console driver spins with interrupts off while the ring is full
(domU_write_console in drivers/tty/hvc/hvc_xen.c): a guest that wrote without the link's credit would stand still when
the host's process dies. With it the guest never has more on its way than the ring holds.
"""
