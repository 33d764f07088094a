"""Start-up: each sample is a process of its own."""

from fastact._declare import ACTIVATIONS


class Start:
    def timeraw_import(self):
        return "import fastact"

    def timeraw_import_numpy(self):
        """What of it is NumPy's."""
        return "import numpy"


class FirstCall:
    """Import and the first call of a function, which has to be compiled or found."""

    params = tuple(ACTIVATIONS)
    param_names = ("function",)

    def timeraw_first_call(self, function):
        ones = ", ".join(["numpy.ones(1, 'f')"] * ACTIVATIONS[function].nin)
        return f"import numpy, fastact; fastact.{function}({ones})"
