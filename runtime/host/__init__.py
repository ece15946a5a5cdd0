"""The host side: zoned and its ledger, the lab, the choice of host, and the `zone` command."""
