"""Our threads and PyTorch's at the same time."""

import pytest
from conftest import LAYERS, run_python
from thread_program import PREPARED

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("layer", LAYERS)
def test_calls_beside_torch(layer):
    code = f"""
import torch
torch.set_num_threads(2)
square = torch.ones(400, 400)
def torch_work():
    assert (square @ square == 400).all()
    assert torch.sigmoid(torch.zeros(300_000)).sum() == 150_000
repeat(3, torch_work, torch_work, check_some, check_some)
pid = os.fork()
if pid == 0:
    status = 1
    try:
        check_some()
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(pid, 0)[1] == 0
torch_work()
check_some()
assert pool.state.layer == {layer!r}, pool.state
"""
    run_python(PREPARED + code, FASTACT_THREADING_LAYER=layer, FASTACT_NUM_THREADS="3")
