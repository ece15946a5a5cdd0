"""What the interpreter imports by name at every start, in place of the standard library's large modules of that name.

Each is frozen under its own name alone (pipeline/build/init.py): together 150 KB that no zone has to hold.
"""
