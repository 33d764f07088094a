"""Dense layers with sigmoid and packed weights."""

from bench import peers, problems, workloads


class Dense:
    params = (["float32", "float64"], ["x".join(map(str, shape)) for shape in workloads.SHAPES])
    param_names = ("dtype", "shape")

    def setup(self, dtype, shape):
        shape = tuple(map(int, shape.split("x")))
        case = problems.problem(workloads.Workload("sigmoid", dtype, shape, dense=True))
        library = peers.PEERS[peers.OURS].load(1)
        self.call = library.dense["sigmoid"](case.inputs, case.out)
        self.call()

    def time_call(self, dtype, shape):
        self.call()
