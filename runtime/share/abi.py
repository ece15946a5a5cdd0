"""Numbers and layouts of 9P2000.L. All integers are little-endian, nothing is aligned; a string is its length[2] first.

Source:  Linux, include/net/9p/9p.h (numbers) and net/9p/protocol.c (layouts); diod, protocol.md; Plan 9, intro(5).
"""

from __future__ import annotations

import struct

VERSION = b"9P2000.L"
UNKNOWN_VERSION = b"unknown"  # version(5): the answer to one that is not spoken here

NOTAG = 0xFFFF
NOFID = 0xFFFFFFFF
NONUNAME = 0xFFFFFFFF  # an attach that names no user by number
NOBODY = 65534  # whose files are then: include/linux/highuid.h, DEFAULT_OVERFLOWUID
MAX_WALK = 16  # names in a walk: include/net/9p/9p.h, P9_MAXWELEM
MIN_MESSAGE_BYTES = 4096  # less no client of Linux works with: net/9p/client.c, p9_client_create
NAME_MAX = 255  # include/uapi/linux/limits.h
TARGET_MAX = 4095  # PATH_MAX without its NUL

# Message types: enum p9_msg_t. The answer to T is T + 1, or RLERROR.
RLERROR = 7
TSTATFS = 8
TLOPEN = 12
TLCREATE = 14
TSYMLINK = 16
TMKNOD = 18
TRENAME = 20
TREADLINK = 22
TGETATTR = 24
TSETATTR = 26
TXATTRWALK = 30
TXATTRCREATE = 32
TREADDIR = 40
TFSYNC = 50
TLOCK = 52
TGETLOCK = 54
TLINK = 70
TMKDIR = 72
TRENAMEAT = 74
TUNLINKAT = 76
TVERSION = 100
TAUTH = 102
TATTACH = 104
TFLUSH = 108
TWALK = 110
TREAD = 116
TWRITE = 118
TCLUNK = 120
TREMOVE = 122

# What a qid is of: enum p9_qid_t.
QTDIR = 0x80
QTSYMLINK = 0x02
QTFILE = 0x00

# Flags of Tlopen and Tlcreate: P9_DOTL_*, which are those of x86-64 (include/uapi/asm-generic/fcntl.h).
ACCESS_MODE = 0o3
RDONLY = 0o0
WRONLY = 0o1
RDWR = 0o2
CREATE = 0o100
EXCL = 0o200
TRUNC = 0o1000
APPEND = 0o2000
DSYNC = 0o10000
DIRECTORY = 0o200000
SYNC = 0o4000000

AT_REMOVEDIR = 0x200  # of Tunlinkat: P9_DOTL_AT_REMOVEDIR

# Which attributes an answer holds: P9_STATS_BASIC, all up to the number of blocks.
GETATTR_BASIC = 0x7FF

# Which attributes are set: P9_ATTR_* (net/9p), the valid field of Tsetattr.
SETATTR_MODE = 0x1
SETATTR_UID = 0x2
SETATTR_GID = 0x4
SETATTR_SIZE = 0x8
SETATTR_ATIME = 0x10
SETATTR_MTIME = 0x20
SETATTR_ATIME_SET = 0x80  # to the time in the message, not to now
SETATTR_MTIME_SET = 0x100

# Kinds of locks, and what becomes of a wish for one: P9_LOCK_TYPE_*, P9_LOCK_*.
LOCK_RDLCK, LOCK_WRLCK, LOCK_UNLCK = 0, 1, 2
LOCK_SUCCESS, LOCK_BLOCKED, LOCK_ERROR = 0, 1, 2

V9FS_MAGIC = 0x01021997  # include/uapi/linux/magic.h

# Kinds of directory entries: include/linux/fs_types.h. What a listing does not say is DT_UNKNOWN.
DT_UNKNOWN, DT_DIR, DT_REG, DT_LNK = 0, 4, 8, 10

# size, type, tag
HEADER = struct.Struct("<IBH")
# Before the data of Rread and Rreaddir: the header and count[4].
DATA_OFFSET = HEADER.size + 4
# type, version, path
QID = struct.Struct("<BIQ")
# After the qid of a directory entry: the offset of the next one, kind. A name follows.
ENTRY = struct.Struct("<QB")
# type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen
STATFS = struct.Struct("<IIQQQQQQI")
# mode, uid, gid, nlink, rdev, size, blksize, blocks; then atime, mtime, ctime, btime as s and ns; gen, data_version
ATTRIBUTES = struct.Struct("<IIIQQQQQ8QQQ")

# The fixed fields of requests, each after the header; of those with strings, the ones between.
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")
U16 = struct.Struct("<H")
U8 = struct.Struct("<B")
FIDS = struct.Struct("<II")  # two fids; a fid and flags
WALK = struct.Struct("<IIH")  # fid, newfid, nwname
CREATE_MODE = struct.Struct("<III")  # Tlcreate: flags, mode, gid
NODE = struct.Struct("<IIII")  # Tmknod: mode, major, minor, gid
GETATTR = struct.Struct("<IQ")  # fid, request_mask
SETATTR = struct.Struct("<IIIIIQQQQQ")  # fid, valid, mode, uid, gid, size, atime and mtime as s and ns
TRANSFER = struct.Struct("<IQI")  # Tread, Twrite, Treaddir: fid, offset, count
LOCK = struct.Struct("<IBIQQI")  # fid, type, flags, start, length, proc_id
GETLOCK = struct.Struct("<IBQQI")  # fid, type, start, length, proc_id
LOCKED = struct.Struct("<BQQI")  # Rgetlock: type, start, length, proc_id
