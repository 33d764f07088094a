"""The threads that share work: their number, their layer, and what compiled loops know of them.

Imports ``_loading`` and what is below it.
"""
