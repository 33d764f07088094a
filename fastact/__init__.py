"""fastact: compiled activation functions as genuine NumPy ufuncs, and dense layers.

``fastact.activations`` declares the functions; every name there is a ufunc of this package.
"""

from fastact._parallel.counts import get_num_threads as get_num_threads
from fastact._parallel.counts import num_threads as num_threads
from fastact._parallel.counts import set_num_threads as set_num_threads
from fastact._runtime import settings as _settings  # noqa: F401 - refuses wrong ones at once
from fastact.activations import *  # noqa: F403 - the declarations are the only list of names
from fastact.backward import dense_backward as dense_backward
from fastact.backward import softmax_backward as softmax_backward
from fastact.layers import Dense as Dense
from fastact.layers import dense as dense
from fastact.objectives import *  # noqa: F403 - every objective is a ufunc, too
from fastact.sequential import Sequential as Sequential

__version__ = "0.1.0"
