"""Dense layers and stacks of them: checks of operands, packed weights, gradients, conversions.

Imports ``_functions`` and what is below it.
"""
