"""The threads that share work: how many, of which layer, and what loops know of them.

Imports ``_loading`` and what is below it.
"""
