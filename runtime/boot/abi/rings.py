"""Shared pages: console ring, version-1 grant entry, xenstore wire message.

Source: xen/include/public/io/console.h (struct xencons_interface), grant_table.h (struct grant_entry_v1),
io/xs_wire.h (struct xsd_sockmsg, enum xsd_sockmsg_type).
"""

from __future__ import annotations

import struct

CONSOLE_IN_OFFSET, CONSOLE_IN_BYTES = 0, 1024
CONSOLE_OUT_OFFSET, CONSOLE_OUT_BYTES = 1024, 2048
CONSOLE_IN_CONS, CONSOLE_IN_PROD, CONSOLE_OUT_CONS, CONSOLE_OUT_PROD = 3072, 3076, 3080, 3084

GRANT_ENTRY_V1 = struct.Struct("<HHI")  # flags, domid, frame
GTF_PERMIT_ACCESS = 1
GTF_TYPE_MASK = 3
GTF_IN_USE = 1 << 3 | 1 << 4  # GTF_reading, GTF_writing: the other domain has it mapped
GNTTAB_RESERVED_CONSOLE = 0
GNTTAB_RESERVED_XENSTORE = 1

XSD_SOCKMSG = struct.Struct("<IIII")  # type, req_id, tx_id, len
XENSTORE_PAYLOAD_MAX = 4096
XS_DIRECTORY = 1
XS_READ = 2
XS_GET_PERMS = 3
XS_WATCH = 4
XS_UNWATCH = 5
XS_TRANSACTION_START = 6
XS_TRANSACTION_END = 7
XS_INTRODUCE = 8
XS_RELEASE = 9
XS_WRITE = 11
XS_MKDIR = 12
XS_RM = 13
XS_SET_PERMS = 14
XS_WATCH_EVENT = 15
XS_ERROR = 16
