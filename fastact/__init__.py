"""fastact: compiled activation functions as genuine NumPy ufuncs.

``fastact.activations`` declares them; every name there is a ufunc of this package.
"""

from .activations import *  # noqa: F403 - the declarations are the only list of names

__version__ = "0.1.0"
