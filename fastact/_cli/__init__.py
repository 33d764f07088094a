"""The verbs of ``python -m fastact``, one module each, with the name of the verb.

A verb's module has ``SUMMARY``, a sentence that says what it does (docstrings may be stripped);
``configure(parser)``, which declares its arguments; and ``run(options)``, which does it and returns
the exit status. ``run`` imports what the verb needs beyond NumPy, so that the other verbs work
without it. ``__main__.VERBS`` lists the modules.
"""


class Refused(Exception):
    """The request cannot be carried out; the message says why, and what to do."""
