"""fastact: compiled activation functions as genuine NumPy ufuncs, and dense layers.

``fastact/_functions`` has a file for each function; every name declared there is a ufunc here.
"""

from fastact._dense.backward import dense_backward as dense_backward
from fastact._dense.backward import softmax_backward as softmax_backward
from fastact._dense.layers import Dense as Dense
from fastact._dense.layers import dense as dense
from fastact._dense.sequential import Sequential as Sequential
from fastact._functions import UFUNCS as _UFUNCS
from fastact._parallel.counts import get_num_threads as get_num_threads
from fastact._parallel.counts import num_threads as num_threads
from fastact._parallel.counts import set_num_threads as set_num_threads
from fastact._runtime import settings as _settings  # noqa: F401 - refuses wrong ones at once

__version__ = "0.1.0"

globals().update(_UFUNCS)
