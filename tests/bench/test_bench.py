"""The comparison runs, reports what it could not do, and refuses wrong results.

No test depends on times.
"""

import contextlib
import dataclasses
import functools
import gc
import os
import subprocess
import sys

import numpy as np
import pytest
import threadpoolctl
from conftest import ROOT

import fastact
from bench import (
    bounds,
    feed_forward,
    machine,
    measure,
    models,
    peers,
    pictures,
    problems,
    results,
    threads,
    tiles,
    timing,
    weights,
    workloads,
)
from bench.__main__ import chosen, main, parse
from bench.peers import OURS, OURS_FAST, OURS_UNPACKED, OWN, PEERS
from bench.peers.base import ARRAY_LAYOUTS, ROWS, Library, Peer, Unsupported
from bench.workloads import Workload
from fastact._compiler.gemm import loops as gemm_loops
from fastact._compiler.gemm import module as gemm_module
from fastact._declarations.records import ACTIVATIONS, Activation, along_rows

ONE = ["--functions", "sigmoid", "--dtypes", "float32", "--repetitions", "1"]
SMALL = [*ONE, "--sizes", "64", "--parts", "sizes"]
SIGMOID = Workload("sigmoid", "float32", (64,))


@pytest.fixture
def command(tmp_path, monkeypatch):
    """``command(*arguments)`` returns the exit status, the results and the Markdown."""

    def run(*arguments, draw=False):
        if not draw:
            monkeypatch.setattr(pictures, "draw_all", lambda *_: [])
        status = main([*arguments, "--output", str(tmp_path / "out")])
        written = tmp_path / "out"
        return status, results.read(written / "results.json"), (written / "report.md").read_text()

    return run


@pytest.fixture
def numpy_is(monkeypatch):
    """``numpy_is(factory)`` replaces NumPy's sigmoid."""

    def replace(factory, **fields):
        library = Library("0", {"sigmoid": factory})
        monkeypatch.setitem(PEERS, "numpy", Peer(lambda threads: library, "numpy", **fields))

    return replace


def measured(workload, *names, **options):
    libraries, _ = peers.load(names)
    return measure.measure(problems.problem(workload), libraries, 1, True, **options)


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("--parts", list(workloads.PARTS)),
        ("--functions", workloads.functions()),
        ("--dtypes", list(workloads.DTYPES)),
        ("--libraries", peers.others()),
        ("--sizes", ["positive integer"]),
        ("--shapes", ["MxKxN"]),
        ("--threads", ["positive integer"]),
        ("--core", list(map(str, machine.cores()))),
        ("--repetitions", ["positive integer"]),
        ("--output", ["expected a folder"]),
    ],
)
def test_bad_values_are_told_what_is_known(option, known, capsys):
    bad = {"--output": f"{__file__}/x", "--core": "999999"}.get(option, "no/such")
    with pytest.raises(SystemExit) as exit_:
        main([option, bad])
    message = capsys.readouterr().err
    assert exit_.value.code == 2
    assert option in message
    assert all(name in message.split("error:")[1] for name in known)


def test_accuracy_without_gmpy2(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not parse([]).accuracy
    with pytest.raises(SystemExit) as exit_:
        parse(["--accuracy"])
    assert exit_.value.code == 2
    assert "gmpy2" in capsys.readouterr().err


def test_defaults():
    full, quick = parse([]), parse(["--quick"])
    assert full.libraries == list(PEERS)
    assert full.functions == quick.functions == workloads.functions()
    assert quick.libraries == [*OWN, "numpy", "scipy"]
    assert quick.repetitions < full.repetitions
    assert quick.threads == full.threads == threads.counts(len(machine.cores()))
    assert parse(["--quick", "--dtypes", "float16"]).dtypes == ["float16"]
    assert parse(["--sizes", "5"]).shared_sizes == [5]


def test_small_run(command, capsys):
    parts = ["--parts", "sizes", "layouts", "scalars", "dense"]
    shapes = ["--sizes", "64", "--shapes", "7x13x5", "--libraries", "numpy", "scipy"]
    status, found, text = command(*ONE, *parts, *shapes, draw=True)
    assert status == 0
    screen = capsys.readouterr().out
    for shown in (screen, text):
        lines = [line.replace("|", " ").split() for line in shown.splitlines()]
        headers = [line for line in lines if line[:2] == ["function", "dtype"]]
        libraries = [OURS, OURS_FAST, "numpy", "scipy"]
        assert headers[0][:7] == ["function", "dtype", "size", *libraries]
        assert headers[1] == ["function", "dtype", *libraries]
        for title in ("Accuracy", "One element", "Layouts", "Dense layers"):
            assert title in shown
    assert "|---" in text
    assert "|---" not in screen
    for part in (machine.cpu_model(), np.__version__, "python -m bench --functions sigmoid"):
        assert part in text
    assert found.versions["numpy"] == np.__version__
    assert (found.incomplete, found.missing, found.machine) == (False, {}, machine.describe())
    assert [row.workload for row in found.rows] == [
        SIGMOID,
        *workloads.layouts(["sigmoid"], ["float32"], workloads.TYPICAL),
        Workload("sigmoid", "float32", (), "NumPy scalar"),
        Workload("sigmoid", "float32", (7, 13, 5), dense=True),
    ]
    for row in found.rows:
        for name in ("fastact", "numpy", "scipy"):
            cell = row.cells[name]
            assert 0 < cell.ns[0] <= cell.ns[1] <= cell.ns[2]
            if row.workload == SIGMOID:
                assert 0 < cell.ulp < 10
    assert found.rows[0].bounds.keys() == {"copy", "fma"}
    for name in ("speed", "accuracy", "speedups", "dense"):
        assert f"({name}.svg)" in text


def test_accuracy_can_be_left_out(command):
    _, found, text = command(*SMALL, "--no-accuracy", "--libraries", "numpy")
    assert found.rows[0].cells["numpy"].ulp is None
    assert "Accuracy" not in text


def test_suite_runs_untimed_with_every_installed_library():
    """In another process, since libraries keep threads and settings."""
    command = [sys.executable, "-m", "pytest", "bench", "--benchmark-disable", "-v"]
    run = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for name in PEERS:
        cases = (f"-{name}]", f"[{name}-missing]")
        lines = [line for line in run.stdout.splitlines() if "::" in line]
        lines = [line for line in lines if any(case in line for case in cases)]
        expected = "SKIPPED" if f"missing: {name}: " in run.stdout else "PASSED"
        assert any(expected in line for line in lines), name
    passed = [line for line in run.stdout.splitlines() if "PASSED" in line]
    for name in workloads.functions():
        for library in (OURS, "numpy"):
            assert any(f"[{name}-" in line and f"-{library}]" in line for line in passed)


@pytest.fixture
def invented(monkeypatch):
    """An activation that no library knows."""

    def cube(x):
        return x * x * x

    record = vars(ACTIVATIONS["tanh"]) | {
        "kernel": cube,
        "reference": lambda m, x: x * x * x,
    }
    monkeypatch.setitem(ACTIVATIONS, "cube", Activation(**record))
    monkeypatch.setattr(
        fastact, "cube", lambda x, out=None: np.multiply(x * x, x, out=out), raising=False
    )


def test_new_activation_appears_by_itself(invented):
    for listed in (workloads.every(ACTIVATIONS), workloads.small(ACTIVATIONS)):
        names = {w.name for w in listed if w.function == "cube"}
        expected = {w.name.replace("tanh", "cube") for w in listed if w.function == "tanh"}
        assert names == expected
        assert len({w.name for w in listed}) == len(listed)
    scalar = Workload("cube", "float32", (), "NumPy scalar")
    for workload in (Workload("cube", "float64", (8,)), scalar):
        cells = measured(workload, OURS, "numpy", with_bounds=False).cells
        assert [cell.status for cell in cells.values()] == ["measured"] * 2


def test_workloads_cover_what_is_promised():
    every = workloads.every(workloads.functions())
    assert {w.function for w in every if w.layout == ROWS} == along_rows().keys()
    for name in ACTIVATIONS:
        of = [w for w in every if w.function == name and not w.dense]
        assert {w.dtype for w in of} == set(workloads.DTYPES)
        assert {*workloads.MIDDLE} <= {w.size for w in of}
        if ACTIVATIONS[name].measured_in_full:
            assert {w.layout for w in of} >= set(ARRAY_LAYOUTS)
            assert {1, workloads.TYPICAL, 1 << 24} <= {w.size for w in of}
    assert sum(declared.measured_in_full for declared in ACTIVATIONS.values()) > 5
    dense = {(w.function, w.dtype, w.shape) for w in every if w.dense}
    assert len(dense) == 2 * 2 * len(workloads.SHAPES)


def test_a_quick_comparison_has_one_size_of_functions_that_are_not_measured_in_full():
    quick = [w for w in chosen(parse(["--quick", "--parts", "sizes"])) if w.dtype == "float32"]
    sizes = {f: {w.size for w in quick if w.function == f} for f in ("tanh", "mish")}
    assert sizes == {"tanh": {256, *workloads.MIDDLE}, "mish": {workloads.TYPICAL}}
    both = chosen(parse(["--quick", "--parts", "sizes", "--sizes", "64"]))
    assert {w.size for w in both} == {64}


def test_missing_library_is_reported(monkeypatch, command, capsys):
    def load(threads):
        raise ImportError("no module of that name")

    monkeypatch.setitem(PEERS, "scipy", Peer(load, "scipy"))
    status, found, text = command(*SMALL, "--libraries", "scipy", "numpy")
    assert status == 0
    assert "scipy is missing: no module of that name" in capsys.readouterr().err
    assert found.missing == {"scipy": "no module of that name"}
    assert list(found.versions) == [*OWN, "numpy"]
    assert "scipy is missing: no module of that name" in text


def half_written(inputs, out):
    return lambda: np.copyto(out[:32], 1 / (1 + np.exp(-inputs[0][:32])))


def returned(value):
    return lambda inputs, out: lambda: value(inputs[0])


@pytest.mark.parametrize(
    ("factory", "writes"),
    [
        (lambda inputs, out: functools.partial(np.cos, inputs[0], out=out), True),
        (half_written, True),
        (returned(lambda x: 1 / (1 + np.exp(-x.astype("f8")))), False),  # another dtype
        (returned(lambda x: 1 / (1 + np.exp(-x[:, None]))), False),  # another shape
    ],
)
def test_wrong_result_is_refused(numpy_is, command, capsys, factory, writes):
    numpy_is(factory, writes=writes)
    status, found, text = command(*SMALL, "--libraries", "numpy")
    assert status == 1
    screen = capsys.readouterr()
    assert "wrong" in screen.out
    assert "numpy: sigmoid-float32-64: wrong: " in screen.err
    assert "numpy: sigmoid-float32-64: wrong: " in text
    refused, ours = found.rows[0].cells["numpy"], found.rows[0].cells["fastact"]
    assert (refused.status, refused.ns, refused.ulp) == ("wrong", None, None)
    assert ours.status == "measured"


def test_wrong_result_in_place_is_refused(numpy_is):
    numpy_is(lambda inputs, out: lambda: None)
    row = measured(dataclasses.replace(SIGMOID, layout="in place"), "numpy")
    assert row.cells["numpy"].status == "wrong"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(Unsupported("no such kernel"), "unsupported", 0), (ValueError("broken"), "error", 1)],
)
def test_library_that_fails_does_not_end_the_run(numpy_is, command, error, status, code):
    def factory(inputs, out):
        raise error

    numpy_is(factory)
    done, found, text = command(*SMALL, "--libraries", "numpy", "scipy")
    assert done == code
    failed = found.rows[0].cells["numpy"]
    assert failed.status == status
    assert str(error) in failed.note
    assert str(error) in text
    assert found.rows[0].cells["scipy"].status == "measured"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_errors_are_measured(numpy_is, dtype):
    """Results are too large by a factor of 1 + 16 eps, which is 16 to 32 ulp, and rounded."""
    factor = np.dtype(dtype).type(1 + 16 * np.finfo(dtype).eps)
    numpy_is(returned(lambda x: factor / (1 + np.exp(-x))), writes=False)
    row = measured(Workload("sigmoid", dtype, (3000,)), "numpy")
    assert 14 < row.cells["numpy"].ulp < 40


def test_errors_with_two_inputs():
    case = problems.problem(Workload("heaviside", "float64", (100,)))
    case.inputs[0][:50] = 0
    want = ACTIVATIONS["heaviside"].reference(np, *case.inputs)
    case = dataclasses.replace(case, want=want)
    libraries, _ = peers.load([OURS])
    assert measure.measure(case, libraries, 1, True).cells[OURS].ulp == 0


def interrupt_at(number, function):
    """`function`, with Ctrl-C at its call of that number."""
    calls = []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == number:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return interrupted


def test_interruption_keeps_finished_rows(monkeypatch, command):
    monkeypatch.setattr(timing, "interleaved", interrupt_at(3, timing.interleaved))
    status, found, text = command(*SMALL, "--libraries", "numpy", "--sizes", "8", "16", "32", "64")
    assert status == 130
    assert found.incomplete
    assert [row.workload.size for row in found.rows] == [8, 16]
    assert "Incomplete" in text


def test_interruption_before_the_first_row(monkeypatch, command):
    monkeypatch.setattr(measure, "measure", interrupt_at(1, measure.measure))
    status, found, _ = command(*SMALL, "--libraries", "numpy")
    assert (status, found.rows, found.incomplete) == (130, [], True)


def test_interruption_of_threads(monkeypatch, command):
    turn = interrupt_at(2, threads._Process.take_turn)
    monkeypatch.setattr(threads._Process, "take_turn", turn)
    sizes = ["--sizes", "64", "--shapes", "7x13x5", "--libraries", "numpy"]
    status, found, _ = command(*ONE, *sizes, "--parts", "threads", "--threads", "1")
    assert status == 130
    assert [list(row.cells) for row in found.scaling] == [[OURS]] * 2


def test_each_library_has_a_process_of_its_own(monkeypatch, command):
    sizes = ["--sizes", "64", "--shapes", "7x13x5", "--libraries", "numpy"]
    status, found, text = command(*ONE, *sizes, "--parts", "threads", "--threads", "3")
    assert status == 0
    assert [(row.threads, row.workload.dense) for row in found.scaling] == [
        (3, False),
        (3, True),
    ]
    array, layer = found.scaling
    assert {name: cell.status for name, cell in array.cells.items()} == {
        OURS: "measured",
        OURS_FAST: "measured",
        "numpy": "measured",
    }
    assert layer.cells.keys() == {OURS, OURS_UNPACKED, "numpy"}
    assert "## Threads" in text


def test_process_that_dies_is_an_error_of_its_library():
    rows = []
    threads.scaling([SIGMOID], ["no such library"], [1], 1, rows, lambda _: None)
    (row,) = rows
    (cell,) = row.cells.values()
    assert cell.status == "error"
    assert "no such library" in cell.note


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="0 cores are an error on Linux")
def test_libraries_and_numbers_of_threads_take_turns(monkeypatch):
    """If the process of one dies, the others still take their turns."""
    turns, said, rows = [], [], []
    take_turn = threads._Process.take_turn

    def noted(process):
        turns.append(process)
        take_turn(process)

    monkeypatch.setattr(threads._Process, "take_turn", noted)
    # A process on 0 cores dies.
    threads.scaling([SIGMOID], ["numpy", "scipy"], [1, 0], 5, rows, said.append)
    assert len(said) == threads.turns(["numpy", "scipy"], [1, 0], 5) == 12
    assert turns == turns[:4] * 2 and len(set(turns)) == 4
    assert [row.threads for row in rows] == [1, 0]
    for row, status in zip(rows, ("measured", "error"), strict=True):
        assert {name: cell.status for name, cell in row.cells.items()} == {
            "numpy": status,
            "scipy": status,
        }
    assert rows[0].repetitions == 6


@pytest.mark.parametrize("name", PEERS)
def test_workloads_take_turns(name):
    """What a library has prepared for one workload is still valid after it has prepared another."""
    libraries, missing = peers.load([name])
    if missing:
        pytest.skip(missing[name])
    (library,) = libraries.values()
    cases = [
        problems.problem(workloads.Workload(function, dtype, (size,)))
        for function in library.arrays.keys() & ACTIVATIONS.keys()
        for dtype in ("float32", "float64")
        for size in (100, 1000)
    ]
    prepared = []
    for case in cases:
        with contextlib.suppress(Unsupported):
            prepared.append((case, measure.checked(name, library, case)[0]))
    # Some libraries lack float64, but each function is there.
    functions = {case.workload.function for case in cases}
    assert {case.workload.function for case, _ in prepared} == functions
    for case, call in prepared:
        case.forget()
        got = PEERS[name].result(call(), case.out)
        np.testing.assert_allclose(got, case.want, *measure.TOLERANCE[case.workload.dtype])


def test_libraries_are_told_how_many_threads(monkeypatch):
    told = []
    monkeypatch.setattr(fastact, "set_num_threads", told.append, raising=False)
    peers.load([OURS, OURS_UNPACKED], threads=3)
    assert told == [3, 3]


def test_rounds_of_threads():
    found = [threads.rounds(n) for n in (1, 3, 4, 9, 21, 25, 1000)]
    assert found == [1, 1, 2, 3, 7, threads.ROUNDS, threads.ROUNDS]


def test_counts_of_threads():
    assert [threads.counts(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", ["relu", "sigmoid"])
def test_dense_layers(function, dtype):
    row = measured(Workload(function, dtype, (5, 4, 3), dense=True), OURS, OURS_UNPACKED, "numpy")
    assert {cell.status for cell in row.cells.values()} == {"measured"}
    assert row.gflops(OURS) == pytest.approx(2 * 5 * 4 * 3 / row.medians()[OURS])
    assert 0 < row.share(OURS) < 1


def test_dense_layer_that_is_wrong(monkeypatch):
    wrong = lambda w, b, f: lambda x, out: np.matmul(x, w, out=out)  # noqa: E731
    monkeypatch.setattr(fastact, "Dense", wrong)
    row = measured(Workload("relu", "float32", (5, 4, 3), dense=True), OURS)
    assert row.cells[OURS].status == "wrong"


@pytest.mark.parametrize("dtype", workloads.DTYPES)
@pytest.mark.parametrize("name", along_rows())
def test_functions_of_rows(name, dtype):
    (workload,) = workloads.rows([name], [dtype], [(9, 7)])
    row = measured(workload, OURS, "numpy", "scipy")
    assert {cell.status for cell in row.cells.values()} == {"measured"}
    if dtype != "float64":
        assert row.cells[OURS].ulp <= along_rows()[name].ulp[dtype]


def test_no_garbage_is_collected_during_samples(numpy_is):
    seen = []

    def factory(inputs, out):
        def call():
            seen.append(gc.isenabled())
            out[:] = 1 / (1 + np.exp(-inputs[0]))

        return call

    numpy_is(factory)
    measured(SIGMOID, "numpy")
    assert seen[0]
    assert not seen[-1]
    assert gc.isenabled()


def test_one_thread_is_undone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_of_the_user")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    more = threadpoolctl.threadpool_limits(2)  # as if BLAS had started on two cores
    before, pools = dict(os.environ), threadpoolctl.threadpool_info()
    pinning = hasattr(os, "sched_getaffinity")
    cores = os.sched_getaffinity(0) if pinning else None
    with timing.one_thread() as core:
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
        assert os.environ["XLA_FLAGS"].startswith("--xla_of_the_user --xla_cpu_multi")
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} <= {1}
        if pinning:
            assert core == max(cores)
            assert os.sched_getaffinity(0) == {core}
            with timing.one_thread(max(cores)) as same:
                assert same == core
    assert dict(os.environ) == before
    assert threadpoolctl.threadpool_info() == pools
    more.restore_original_limits()
    if pinning:
        assert os.sched_getaffinity(0) == cores


def test_arrays_are_on_cache_lines():
    for size in (1, 1000, 100_000):
        case = problems.problem(Workload("heaviside", "float16", (size,)))
        assert {a.ctypes.data % 64 for a in (*case.inputs, case.out)} == {0}
        assert case.out.shape == (size,)


def test_layouts_are_what_they_are_called():
    cases = {w.layout: problems.problem(w) for w in workloads.layouts(["sigmoid"], ["float32"], 64)}
    x = {layout: case.inputs[0] for layout, case in cases.items()}
    assert list(x) == list(ARRAY_LAYOUTS[1:])
    assert cases["in place"].out is x["in place"]
    assert x["strided"].strides == (8,)
    assert not x["unaligned"].flags.aligned
    assert x["transposed"].flags.f_contiguous and not x["transposed"].flags.c_contiguous
    for case in cases.values():
        assert case.out.flags.c_contiguous
        np.testing.assert_allclose(1 / (1 + np.exp(-case.inputs[0].astype("f8"))), case.want)


def test_in_place_starts_from_the_input_in_each_sample():
    case = problems.problem(dataclasses.replace(SIGMOID, layout="in place"))
    seen = []
    timing.interleaved(
        {"": lambda: seen.append(case.out[0]) or case.out.fill(9)}, {"": 2}, 2, case.prepare
    )
    assert seen == [case.original[0], 9, 9] * 2


def test_repetitions_end_in_time_but_not_at_once():
    samples = timing.interleaved({"": gc.isenabled}, {"": 1}, 50, seconds=0)
    assert len(samples[""]) == timing.LEAST


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peak_is_of_as_many_multiply_adds_as_it_says(dtype):
    loop = bounds.fma_loop(dtype)
    assert loop.lanes % bounds.CHAINS == 0
    for rounds in (1, 3, 1000):
        assert loop(rounds, 1, 1) == rounds * loop.lanes
    assert loop(3, 2, 1) == 7 * loop.lanes  # ((0 * 2 + 1) * 2 + 1) * 2 + 1


def test_operations_of_kernels():
    assert bounds.operations("relu", "float32") == 1
    assert bounds.operations("step", "float64") == 2  # >= 0, and whether it is NaN
    assert 15 < bounds.operations("sigmoid", "float32") < bounds.operations("sigmoid", "float64")


def test_times_of_weights_in_fewer_bits(capsys):
    weights.main(["--shapes", "3x4x5", "2x3x40", "--repetitions", "3"])
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in header.split("|")[3:-1]] == ["bfloat16", "float16", "int8"]
    shapes = [line.split("|")[1].strip() for line in lines]
    assert shapes == ["3 x 4 x 5", "2 x 3 x 40"]
    assert all(float(cell) > 0 for line in lines for cell in line.split("|")[2:-1])


def test_times_of_feed_forward_blocks(capsys):
    sizes = ["--rows", "1", "3", "--width", "8", "--hidden", "20", "--repetitions", "3"]
    feed_forward.main(sizes)
    _, _, *lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [first for first, *_ in cells] == ["1 x 8 x 20", "3 x 8 x 20"]
    assert all(float(cell) > 0 for _, *times in cells for cell in times if cell)


def test_feed_forward_blocks_must_agree(monkeypatch):
    other = {feed_forward.SEPARATE: lambda x, out, weights: lambda: out.fill(7)}
    monkeypatch.setattr(feed_forward, "BLOCKS", feed_forward.BLOCKS | other)
    with pytest.raises(RuntimeError, match="separate layers computes another result"):
        feed_forward.calls(1, 8, 20)


def test_times_of_converted_models(capsys):
    for library in ("onnx", "onnxruntime", "torch"):
        pytest.importorskip(library, reason=f"{library} is in the extra 'peers'")
    models.main(["--repetitions", "3", "--passes", "1"])
    title, _, header, _, *lines, _, versions = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (header, *lines)]
    assert title.startswith("# ") and "torch " in versions and cells[0] == models.HEADERS
    assert [row[0] for row in cells[1:]] == ["scikit-learn", "ONNX Runtime", "PyTorch"]
    for _, _, layers, difference, *times in cells[1:]:
        assert layers == "3" and float(difference) < 1e-5
        assert all(float(time) > 0 for time in times)


def test_compared_tiles_are_those_that_are_compiled(monkeypatch):
    """``bench.tiles`` uses neither code of the cache nor that of another size or constant."""
    seen = []
    original = gemm_module.object_code

    def spy(form, lanes, target, stored):
        seen.append((dict(target.tiles), gemm_loops.K_BLOCK))
        return original(form, lanes, target, stored)

    monkeypatch.setattr(gemm_module, "object_code", spy)
    for size, constants in (((1, 1), {}), ((2, 1), {}), ((2, 1), {"K_BLOCK": 77})):
        for _ in range(2):
            tiles.layer((3, 4, 5), "float32", tiles.one_tile(size), constants)()
    usual = gemm_loops.K_BLOCK
    assert seen == [({1: 1}, usual)] * 2 + [({1: 2}, usual)] * 2 + [({1: 2}, 77)] * 2
