"""fastact: compiled activation functions as genuine NumPy ufuncs, and dense layers.

``fastact.activations`` declares the functions; every name there is a ufunc of this package.
"""

from . import _cpu as _cpu  # refuses what may not be asked for, before anything is made
from ._threads import get_num_threads as get_num_threads
from ._threads import num_threads as num_threads
from ._threads import set_num_threads as set_num_threads
from .activations import *  # noqa: F403 - the declarations are the only list of names
from .backward import dense_backward as dense_backward
from .backward import softmax_backward as softmax_backward
from .layers import Dense as Dense
from .layers import dense as dense
from .objectives import *  # noqa: F403 - every objective is a ufunc, too
from .sequential import Sequential as Sequential

__version__ = "0.1.0"
