"""The `zone` command: `entry` runs one, `commands` is the table of all, each module beside them is a few of them."""

from runtime.host.cli.entry import main as main
