"""Makes the checkout and tests/support importable, whatever directory pytest was started from."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for path in (HERE, HERE.parent):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))

# A shell starts what it puts in the background with SIGINT ignored, which all children inherit; tests of Ctrl-C need
# it as a person's terminal has it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
