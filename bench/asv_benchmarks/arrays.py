"""Time, memory and accuracy of the functions on arrays.

asv starts a process for every combination of parameters, so there are few of them.
"""

import numpy as np

import fastact
from bench import problems, workloads
from fastact._declarations.records import ACTIVATIONS, along_rows

# A process for each function takes seconds, so the others are left out.
FUNCTIONS = [name for name, activation in ACTIVATIONS.items() if activation.measured_in_full]
UNARY = [name for name in FUNCTIONS if ACTIVATIONS[name].nin == 1]


def prepared(function, dtype, shape, layout="contiguous"):
    """Return a compiled ufunc with its inputs and output."""
    case = problems.problem(workloads.Workload(function, dtype, shape, layout))
    ufunc = getattr(fastact, function)
    ufunc(*case.inputs, out=case.out)
    return ufunc, case.inputs, case.out


class Arrays:
    """Contiguous arrays, and one element, which shows the cost of a call."""

    params = (FUNCTIONS, list(workloads.DTYPES))
    param_names = ("function", "dtype")

    def setup(self, function, dtype):
        self.ufunc, self.inputs, self.out = prepared(function, dtype, (workloads.TYPICAL,))
        self.ones = [x[:1] for x in self.inputs]
        self.one = self.out[:1]

    def time_array(self, function, dtype):
        self.ufunc(*self.inputs, out=self.out)

    def time_one_element(self, function, dtype):
        self.ufunc(*self.ones, out=self.one)

    time_one_element.params = (FUNCTIONS, ["float32"])


class Layouts:
    """Time and memory for buffers of each layout, of one function: the others cost the same."""

    params = tuple(workloads.ARRAY_LAYOUTS)
    param_names = ("layout",)

    def setup(self, layout):
        shape = (1024, 1024) if layout == "transposed" else (1 << 20,)
        self.ufunc, (self.x,), self.out = prepared(UNARY[0], "float32", shape, layout)

    def time_call(self, layout):
        self.ufunc(self.x, out=self.out)

    def peakmem_call(self, layout):
        self.ufunc(self.x, out=self.out)


class Rows:
    """Functions of rows."""

    params = (list(along_rows()), [f"{m}x{n}" for m, n in workloads.ROW_SHAPES])
    param_names = ("function", "shape")

    def setup(self, function, shape):
        shape = tuple(map(int, shape.split("x")))
        self.ufunc, self.inputs, self.out = prepared(function, "float32", shape, "rows")

    def time_call(self, function, shape):
        self.ufunc(*self.inputs, out=self.out)


class Accuracy:
    """Largest error, over all inputs of 16 bits and a sample of the others."""

    params = (UNARY, list(workloads.DTYPES))
    param_names = ("function", "dtype")

    def setup(self, function, dtype):
        getattr(fastact, function)(np.ones(1, dtype))

    def track_max_ulp(self, function, dtype):
        from bench import accuracy  # needs gmpy2, which the other benchmarks do not

        ufunc, reference = getattr(fastact, function), ACTIVATIONS[function].reference
        if dtype == "float64":
            return accuracy.float64_report(ufunc, reference, accuracy.samples64(20_000, 0)).ulp
        if dtype == "float16":
            return accuracy.exhaustive(ufunc, reference, dtype).ulp
        patterns = np.arange(0, 1 << 32, 9973, dtype=np.uint64).astype(np.uint32)
        return accuracy.narrow_report(ufunc, reference, patterns.view(np.float32), dtype).ulp

    track_max_ulp.unit = "ulp"
