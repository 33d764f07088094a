"""Dense layers and stacks of them: checks of operands, packed weights, gradients, conversions.

Imports ``_functions`` and the packages below it.
"""
