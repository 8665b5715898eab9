"""Other stores of Yjs documents, from which people move here: each module reads one kind, and changes nothing there.

A source yields names with the updates kept under them, as they lie there. What they mean, whether they are wanted,
and our own tables are not known here; each module alone imports the library that its store needs.
"""
