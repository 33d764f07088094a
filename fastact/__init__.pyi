# Written by `python -m tools.documents` from the declarations.
from fastact._dense.backward import dense_backward as dense_backward
from fastact._dense.layers import Dense as Dense
from fastact._dense.layers import dense as dense
from fastact._dense.sequential import Sequential as Sequential
from fastact._functions.heaviside import heaviside as heaviside
from fastact._functions.logistic_grad_hess import logistic_grad_hess as logistic_grad_hess
from fastact._functions.relu import relu as relu
from fastact._functions.relu import relu_backward as relu_backward
from fastact._functions.sigmoid import sigmoid as sigmoid
from fastact._functions.sigmoid import sigmoid_backward as sigmoid_backward
from fastact._functions.softmax import softmax as softmax
from fastact._functions.softmax import softmax_backward as softmax_backward
from fastact._functions.softplus import softplus as softplus
from fastact._functions.softplus import softplus_backward as softplus_backward
from fastact._functions.step import step as step
from fastact._functions.step import step_backward as step_backward
from fastact._functions.tanh import tanh as tanh
from fastact._functions.tanh import tanh_backward as tanh_backward
from fastact._parallel.counts import get_num_threads as get_num_threads
from fastact._parallel.counts import num_threads as num_threads
from fastact._parallel.counts import set_num_threads as set_num_threads
from fastact._runtime.configuration import show_config as show_config

__version__: str
__all__: list[str]
