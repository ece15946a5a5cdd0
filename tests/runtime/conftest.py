"""zsys exists inside the zone's program only; what calls it is tested there (init/test_init_box.py), the rest here."""

import sys
import types

sys.modules.setdefault("zsys", types.ModuleType("zsys"))
