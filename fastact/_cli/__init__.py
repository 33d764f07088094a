"""The verbs of ``python -m fastact``, a module each, named as the verb.

A verb's module has ``SUMMARY``, a sentence that says what it does (docstrings may be stripped),
``configure(parser)``, which declares its arguments, and ``run(options)``, which does it and returns
the exit status. What it needs beyond NumPy it imports in ``run``, so that the other verbs do
without. It is listed in ``__main__.VERBS``.
"""


class Refused(Exception):
    """What was asked for cannot be done; the message says why, and what to do."""
