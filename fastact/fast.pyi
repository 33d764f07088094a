# Written by `python -m tools.documents` from the declarations.
from fastact._functions.sigmoid import sigmoid as sigmoid
from fastact._functions.tanh import tanh as tanh
