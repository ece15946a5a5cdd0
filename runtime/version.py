"""The version of zonewright: here, as a zoned on the lab's code disk has no package to ask. pyproject.toml reads it."""

VERSION = "0.1.0"
