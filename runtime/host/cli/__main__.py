"""`python -m runtime.host.cli`."""

import sys

from runtime.host.cli.entry import main

sys.exit(main())
