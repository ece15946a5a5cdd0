"""What runs in the zone, frozen into one static program that is started as /init, /bin/zone and /bin/styrolite.

Imports: the C modules posix, _socket, _struct, select, errno, gc, time, sys and zsys (zsys.c) and nothing else: what
`import socket, json, re` would cost is more than everything init does. Annotations therefore are plain builtins,
models are tuples, and JSON has its own reader.
"""
