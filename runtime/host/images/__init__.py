"""Images in zoned: pulled and packed by child processes without privileges, into the store of this host.

model      what is asked, and what comes of it        tasks      children, each shared by all who ask for the same
work       what a child does                          catalog    the images that are packed, by digest and format
child      the child itself                           account    whom the store and the children belong to
"""
