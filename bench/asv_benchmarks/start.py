"""Start-up: each sample is a separate process."""

import numpy as np

import fastact
from fastact._declarations.records import ACTIVATIONS


class Start:
    def timeraw_import(self):
        return "import fastact"

    def timeraw_import_numpy(self):
        """The part of the import that is NumPy's."""
        return "import numpy"


class FirstCall:
    """Import and the first call of a function, compiled or loaded from the cache."""

    params = (
        [name for name, activation in ACTIVATIONS.items() if activation.measured_in_full],
        ["cached", "compiled"],
    )
    param_names = ("function", "code")

    def setup(self, function, code):
        inputs = [np.ones(1, "f")] * ACTIVATIONS[function].nin
        getattr(fastact, function)(*inputs)  # fills the cache

    def timeraw_first_call(self, function, code):
        ones = ", ".join(["numpy.ones(1, 'f')"] * ACTIVATIONS[function].nin)
        use = "1" if code == "cached" else "0"
        return (
            f"import os; os.environ['FASTACT_CACHE'] = '{use}'\n"
            f"import numpy, fastact; fastact.{function}({ones})"
        )
