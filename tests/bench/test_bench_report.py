"""Results are stored, shown, drawn and compared unchanged."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET

import matplotlib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from bench import accuracy, compare, machine, pictures, readme, report, results, tables
from bench.peers import OURS, OURS_UNPACKED, PEERS
from bench.results import Cell, Results, Row
from bench.workloads import TYPICAL, Workload


def cell(ns, ulp=None, spread=0.0):
    return Cell("measured", "", (ns * (1 - spread), ns, ns * (1 + spread)), 1, ulp)


def row(times, function="sigmoid", dtype="float32", shape=(TYPICAL,), spread=0.0, **fields):
    """A row with these nanoseconds per element, or per call of dense layers and scalars."""
    workload_fields = {k: fields.pop(k) for k in ("layout", "dense") if k in fields}
    workload = Workload(function, dtype, shape, **workload_fields)
    factor = 1 if workload.dense else workload.size
    ulps = fields.pop("ulps", {})
    cells = {n: cell(ns * factor, ulps.get(n), spread) for n, ns in times.items()}
    bounds = {"copy": (0.1 * factor,) * 3, "fma": (0.2 * factor,) * 3}
    return Row(workload, cells, bounds, repetitions=1, **fields)


def made(*rows, scaling=(), **fields):
    names = {name for r in (*rows, *scaling) for name in r.cells}
    versions = {name: "1" for name in PEERS if name in names}
    return Results("command", {"cpu": "a CPU"}, versions, rows=list(rows), scaling=list(scaling),
                   **{"incomplete": False} | fields)  # fmt: skip


EVERYTHING = made(
    *(
        row({OURS: 0.5 * k, "numpy": 2.0, "scipy": 3.0, "torch": 1.0}, f, d, (16**k,),
            ulps={OURS: 0.7, "numpy": 3.0, "torch": 5e7})
        for f in ("sigmoid", "tanh")
        for d in ("float32", "float64")
        for k in (3, 4)
    ),
    row({OURS: 2.0, "torch": 1.0}, layout="strided"),
    row({OURS: 100.0, "numpy": 900.0}, shape=(), layout="NumPy scalar"),
    row({OURS: 100.0, "numpy": 99.0}, "relu", shape=(), layout="NumPy scalar"),
    row({OURS: 1000.0, OURS_UNPACKED: 1200.0, "numpy": 800.0},
        "relu", shape=(7, 13, 5), dense=True),
    scaling=[row({OURS: 0.5 / t, "torch": 0.4 / t}, threads=t, own_process=True) for t in (1, 2)],
)  # fmt: skip

any_cell = st.builds(
    Cell,
    st.sampled_from(["measured", "unsupported", "wrong", "error"]),
    st.text(),
    st.none() | st.tuples(*[st.floats(0, 1e12)] * 3),
    st.integers(0),
    st.none() | st.floats(0) | st.just(float("inf")),
)
any_row = st.builds(
    Row,
    st.builds(Workload, st.text(), st.text(), st.lists(st.integers(1)).map(tuple)),
    st.dictionaries(st.sampled_from(list(PEERS)), any_cell),
    st.dictionaries(st.text(), st.tuples(*[st.floats(0, 1e12)] * 3)),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(any_row, max_size=3), st.lists(any_row, max_size=3), st.text(), st.booleans())
def test_results_come_back_as_they_were(rows, scaling, command, incomplete):
    found = Results(command, {}, {}, {}, 3, rows, scaling, incomplete)
    assert results.from_json(results.to_json(found)) == found


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 0}', '{"format": 1}', '{"format": 1, "rows": [3]}', "\xff"]
)
@pytest.mark.parametrize("program", [report, compare])
def test_bad_files_are_named(tmp_path, capsys, text, program):
    bad = tmp_path / "bad.json"
    bad.write_bytes(text.encode("latin-1"))
    arguments = [str(bad), "--output", str(tmp_path)] if program is report else [str(bad)] * 2
    assert program.main(arguments) == 2
    assert str(bad) in capsys.readouterr().err


def test_missing_file_is_named(tmp_path, capsys):
    assert compare.main([str(tmp_path / "no"), str(tmp_path / "no")]) == 2
    assert str(tmp_path / "no") in capsys.readouterr().err


def test_ratios():
    times = {"fastact": 0.5, "numpy": 2.0, "scipy": 3.0, "torch": 1.0}
    table = tables.speed([row(times, shape=(64,))], "plain")
    line = table.splitlines()[1].split()
    assert line == [
        "sigmoid", "float32", "64", "0.5", "2", "3", "1", "0.1", "0.2", "0%", "2.00", "4.00"
    ]  # fmt: skip


def test_dense_table():
    table = tables.dense(EVERYTHING.select(dense=True), "tsv")
    header, line = ([text.strip() for text in line.split("\t")] for line in table.splitlines())
    shown = dict(zip(header, line, strict=True))
    # 2 * 7 * 13 * 5 operations in 1000 ns; the bound is 0.2 ns of 1000, and of 800.
    assert shown["GFLOP/s"] == "0.91"
    assert (shown["of FMA peak"], shown["best of others"]) == ("0%", "0% numpy")
    assert (shown["numpy"], shown["vs others"]) == ("0.8", "0.80")


def test_every_loss_is_listed():
    losses = {
        (tables.describe(r), name, round(times, 3))
        for r, name, times in tables.faster(EVERYTHING.all_rows)
    }
    assert losses == {
        *((f"{f} {d}, {16**k}", "torch", 0.5 * k) for f in ("sigmoid", "tanh")
          for d in ("float32", "float64") for k in (3, 4)),
        ("sigmoid float32, 65536, strided", "torch", 2.0),
        ("dense relu float32, 7 x 13 x 5", "numpy", 1.25),
        ("relu float32, NumPy scalar", "numpy", 1.01),
        ("sigmoid float32, 65536, one thread, own process", "torch", 1.25),
        ("sigmoid float32, 65536, 2 threads", "torch", 1.25),
    }  # fmt: skip
    table = tables.slower(EVERYTHING, "plain")
    for what, *_ in losses:
        assert what in table


def test_the_readme_links_to_the_report_of_its_figures():
    target = f"{readme.MAIN.relative_to(machine.ROOT).as_posix()}/report.md"
    assert f"[full report]({target})" in (machine.ROOT / "README.md").read_text(encoding="utf-8")


def test_report_tells_what_is_missing():
    unsupported = dataclasses.replace(
        row({OURS: 1.0}), cells={"jax": Cell("unsupported", "no way")}
    )
    wrong = dataclasses.replace(row({OURS: 1.0}), cells={"numpy": Cell("wrong", "all of it")})
    found = made(unsupported, wrong, missing={"torch": "not here"}, incomplete=True)
    text = report.markdown(found)
    for part in ("jax: no way", "wrong: all of it", "torch is missing: not here", "Incomplete"):
        assert part in text


def test_pictures_are_the_same_each_time(tmp_path):
    files = []
    for name in "ab":
        (tmp_path / name).mkdir()
        drawn = pictures.draw_all(EVERYTHING, tmp_path / name, ["svg"])
        assert drawn == list(pictures.PICTURES)
        files.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert files[0] == files[1]
    assert len(files[0]) == len(pictures.PICTURES)
    for text in files[0].values():
        ET.fromstring(text)
    assert not plt.get_fignums()


def test_png_is_written(tmp_path):
    report.write(made(*EVERYTHING.select(function="tanh")), tmp_path, ["svg", "png"])
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert "(speed.svg)" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("picture", pictures.PICTURES.values(), ids=list(pictures.PICTURES))
def test_pictures_of_nothing(picture):
    assert picture.draw(made()) is None
    alone = made(row({OURS: 1.0}), row({OURS: 1.0}, "relu", shape=(1, 2, 3), dense=True))
    if (figure := picture.draw(alone)) is not None:  # what one library alone can show
        plt.close(figure)


@pytest.fixture
def drawn():
    """``drawn(draw)`` returns the picture that `draw` makes of `EVERYTHING`."""
    yield lambda draw: draw(EVERYTHING)
    plt.close("all")


def test_lines_are_the_results(drawn):
    axis = drawn(pictures.speed).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert axis.get_title() == "sigmoid"
    assert lines["numpy"] == [[16**3, 2.0], [16**4, 2.0]]
    assert lines[OURS] == [[16**3, 1.5], [16**4, 2.0]]
    dashed = [line.get_ydata().tolist() for line in axis.lines if line.get_linestyle() == "--"]
    assert dashed == [[0.1, 0.1], [0.2, 0.2]]


def test_points_are_the_results(drawn):
    axis = drawn(pictures.accuracy).axes[0]
    points = {to_hex(p.get_facecolor()[0]): p.get_offsets().tolist()[0] for p in axis.collections}
    assert points == {
        pictures.LOOKS[OURS][0]: [2.0, 0.7],
        pictures.LOOKS["numpy"][0]: [2.0, 3.0],
        pictures.LOOKS["torch"][0]: [1.0, 5e7],
    }


def test_losses_have_another_colour(drawn):
    won = row({OURS: 1.0, "torch": 2.0}, "relu")
    figure = pictures.speedups(made(won, *EVERYTHING.select(function="tanh")))
    bars = [(to_hex(b.get_facecolor()), b.get_width()) for b in figure.axes[0].patches]
    ours, torch = pictures.LOOKS[OURS][0], pictures.LOOKS["torch"][0]
    assert bars == [(ours, 1.0), (torch, -0.5), (torch, -0.5)]
    plt.close(figure)


def test_shares_are_the_results(drawn):
    axis = drawn(pictures.dense).axes[0]
    points = {to_hex(p.get_facecolor()[0]): p.get_offsets().tolist()[0] for p in axis.collections}
    expected = {OURS: 0.2 / 1000, OURS_UNPACKED: 0.2 / 1200, "numpy": 0.2 / 800}
    assert points == {
        pictures.LOOKS[name][0]: pytest.approx([100 * share, 0]) for name, share in expected.items()
    }


def test_scaling_is_the_results(drawn):
    axis = drawn(pictures.threads).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert lines == {OURS: [[1, 2.0], [2, 4.0]], "torch": [[1, 2.5], [2, 5.0]]}


def test_every_library_has_a_look_of_its_own():
    assert pictures.LOOKS.keys() == PEERS.keys()
    assert len({colour for colour, _ in pictures.LOOKS.values()}) == len(PEERS)


def altered(found, factor, names=(OURS,), spread=0.0):
    """The results with the times of `names` multiplied."""
    (only,) = found.rows
    times = {n: ns * (factor if n in names else 1) for n, ns in only.per_element().items()}
    return dataclasses.replace(found, rows=[row(times, spread=spread)])


BASE = made(row({OURS: 1.0, "numpy": 2.0, "torch": 3.0}))


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        (altered(BASE, 1.0), "same"),
        (altered(BASE, 1.09), "same"),  # below the threshold
        (altered(BASE, 1.2), "slower"),
        (altered(BASE, 0.8), "faster"),
        (altered(BASE, 1.2, spread=0.15), "same"),  # within the noise
        (altered(BASE, 1.5, spread=0.15), "slower"),
        (altered(BASE, 1.5, names=(OURS, "numpy", "torch")), "same"),  # all are slower
        (altered(BASE, 0.5, names=("numpy", "torch")), "slower"),  # only others are faster
    ],
)
def test_verdicts(tmp_path, capsys, new, verdict):
    (change,) = compare.changes(BASE, new, 0.1)
    assert change.verdict == verdict
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for file, found in zip(files, (BASE, new), strict=True):
        file.write_text(results.to_json(found))
    assert compare.main([*map(str, files)]) == (verdict == "slower")
    shown = capsys.readouterr().out
    assert (f"sigmoid float32, {TYPICAL}" in shown) == (verdict != "same")
    assert f"1 compared, {int(verdict == 'slower')} slower" in shown


def test_own_processes_are_compared_with_such(tmp_path):
    old, new = (made(*BASE.rows, scaling=[row({OURS: ns}, own_process=True)]) for ns in (5.0, 10.0))
    assert [c.verdict for c in compare.changes(old, new, 0.1)] == ["slower", "same"]


def test_drift_is_of_the_same_versions():
    new = altered(BASE, 0.5, names=("numpy", "torch"))
    new.versions = new.versions | {"numpy": "2", "torch": "2"}
    (change,) = compare.changes(BASE, new, 0.1)
    assert (change.drift, change.verdict) == (1, "same")


def test_what_only_one_file_has_is_listed(tmp_path, capsys):
    other = made(row({OURS: 1.0}, "tanh"))
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for file, found in zip(files, (BASE, other), strict=True):
        file.write_text(results.to_json(found))
    assert compare.main([*map(str, files)]) == 0
    shown = capsys.readouterr().out
    assert "only in OLD: fastact: sigmoid" in shown
    assert "only in NEW: fastact: tanh" in shown


@pytest.mark.parametrize("bad", ["-1", "x", "nan", "inf"])
def test_bad_threshold(bad, capsys):
    with pytest.raises(SystemExit) as exit_:
        compare.main(["a", "b", f"--threshold={bad}"])
    assert exit_.value.code == 2
    assert bad in capsys.readouterr().err


def test_documents_show_the_committed_results():
    runs = readme.complete_runs()
    assert readme.MAIN in runs
    names = set()
    for page in readme.documents():
        text = page.read_text(encoding="utf-8")
        names |= {name for _, name, _ in readme._BLOCK.findall(text)}
        assert readme.render(page, text, runs) == text, f"{page}: run python -m bench.readme"
    assert names == readme.NAMES
    for folder, found in runs.items():
        shown = (folder / "report.md").read_text(encoding="utf-8")
        drawn = re.findall(r"\((\w+)\.svg\)", shown)
        assert shown == report.markdown(found, [f"{name}.svg" for name in drawn])


def test_blocks_are_written_anew():
    text = "before\n<!-- figures: origin -->\nold\n<!-- end -->\nafter\n"
    shown = readme.render(readme.ROOT / "README.md", text, {readme.MAIN: BASE})
    assert "old" not in shown
    assert readme.origin(BASE) in shown
    assert shown.startswith("before\n<!-- figures: origin -->\n")
    assert shown.endswith("\n<!-- end -->\nafter\n")


def test_pictures_are_found_from_where_the_page_is():
    page = readme.ROOT / "docs" / "guide" / "page.md"
    shown = readme.render(
        page, "<!-- figures: picture speed -->\n<!-- end -->\n", {readme.MAIN: BASE}
    )
    (path,) = re.findall(r"!\[.+\]\((.+)\)", shown)
    assert (page.parent / path).resolve() == readme.MAIN / "speed.svg"


def test_summary_has_a_row_for_each_function_and_a_layer():
    found = made(
        row({OURS: 2.0, "torch": 1.0}),
        row({OURS: 2.0, "torch": 1.0}, dtype="float64"),
        row({OURS: 2.0, "torch": 1.0}, shape=(16,)),
        row({OURS: 1000.0, OURS_UNPACKED: 1.0, "numpy": 3000.0}, shape=(256, 784, 128), dense=True),
    )
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in readme.summary(found).splitlines()
    ]
    assert lines[0] == ["function", "shape", OURS, "numpy", "torch", "fastest other / ours"]
    assert lines[2] == ["sigmoid", "65536", "131", "-", "65.5", "0.50"]
    assert lines[3] == ["dense, sigmoid", "256 x 784 x 128", "1", "3", "-", "3.00"]
    assert len(lines) == 4


@pytest.mark.parametrize("folder", readme.complete_runs(), ids=lambda folder: folder.name)
def test_pictures_show_the_committed_results(folder, tmp_path, monkeypatch):
    found = results.read(folder / "results.json")
    signature = pictures.signature(found)
    committed = {p.stem: p.read_text(encoding="utf-8") for p in folder.glob("*.svg")}
    without = set() if found.scaling else {"threads"}
    assert committed.keys() == pictures.PICTURES.keys() - without
    for text in committed.values():
        assert signature["Description"] in text, "run python -m bench.readme"
    if signature["Creator"] in committed["speedups"]:  # another matplotlib may draw otherwise
        only = {"speedups": pictures.PICTURES["speedups"]}  # the others take seconds each
        monkeypatch.setattr(pictures, "PICTURES", only)
        pictures.draw_all(found, tmp_path, ["svg"])
        assert (tmp_path / "speedups.svg").read_text(encoding="utf-8") == committed["speedups"]


ANOTHER = dataclasses.replace(
    made(row({OURS: 4.0, "torch": 2.0}, ulps={OURS: 0.7})),
    machine={"cpu": "another CPU", "level": "x86-64-v3"},
)


@pytest.fixture
def two_machines(tmp_path, monkeypatch):
    """The page of two runs, on machines of different kinds, after ``python -m bench.readme``."""
    page = tmp_path / "docs" / "page.md"
    monkeypatch.setattr(readme, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(readme, "MAIN", tmp_path / "results" / "main")
    monkeypatch.setattr(readme, "documents", lambda: [page])
    for name, found in (("main", EVERYTHING), ("zen", ANOTHER)):
        (readme.RESULTS / name).mkdir(parents=True)
        (readme.RESULTS / name / "results.json").write_text(results.to_json(found))
    page.parent.mkdir()
    blocks = ["origin", "speed", "slower", "picture speedups", readme.OTHERS]
    page.write_text("".join(f"<!-- figures: {name} -->\n<!-- end -->\n" for name in blocks))
    assert readme.main([]) == 0
    return page


def test_limits_of_other_libraries_are_shown(monkeypatch):
    for name in machine.LIMITS:
        monkeypatch.delenv(name, raising=False)
    assert machine.describe()["limits"] == {}
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    found = dataclasses.replace(EVERYTHING, machine=machine.describe())
    assert "OPENBLAS_CORETYPE=Haswell, " in report.origin(found)


def test_each_figure_is_shown_with_its_machine(two_machines):
    text = two_machines.read_text(encoding="utf-8")
    mine, _, others = text.partition(f"<!-- figures: {readme.OTHERS} -->")
    assert "a CPU" in mine and "another CPU" not in mine and "zen" not in mine
    assert "### zen" in others and "### main" not in others
    assert "another CPU, FASTACT_CPU=x86-64-v3, " in others
    assert readme.speed(EVERYTHING) in mine and readme.speed(EVERYTHING) not in others
    assert readme.speed(ANOTHER) in others and readme.slower(ANOTHER) in others
    for path in re.findall(r"\]\((.+?)\)", text):
        assert (two_machines.parent / path).exists()
    assert "(../results/main/speedups.svg)" in mine and "main/" not in others
    assert "(../results/zen/speedups.svg)" in others and "(../results/zen/report.md)" in others


def test_every_machine_has_its_report(two_machines):
    reports = {
        folder.name: (folder / "report.md").read_text(encoding="utf-8")
        for folder in readme.RESULTS.iterdir()
    }
    assert reports.keys() == {"main", "zen"}
    assert "another CPU" not in reports["main"] and "another CPU" in reports["zen"]


def test_an_interrupted_run_is_not_shown(two_machines, capsys):
    before = two_machines.read_text(encoding="utf-8")
    incomplete = dataclasses.replace(ANOTHER, incomplete=True)
    (readme.RESULTS / "zen" / "results.json").write_text(results.to_json(incomplete))
    assert readme.main([]) == 2
    assert "zen" in capsys.readouterr().err
    assert two_machines.read_text(encoding="utf-8") == before


def test_different_levels_are_told(tmp_path, capsys):
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for file, found in zip(files, (ANOTHER, BASE), strict=True):
        file.write_text(results.to_json(found))
    compare.main([*map(str, files)])
    told = capsys.readouterr().err
    assert "another CPU, a CPU" in told and "FASTACT_CPU: x86-64-v3, native" in told


def test_declared_accuracy_is_in_the_table_of_all_inputs():
    lines = readme.exhaustive(made()).splitlines()
    assert lines[0].replace("|", " ").split() == list(accuracy.PRECISION)
    assert len(lines) > 5


def test_results_are_json_for_others():
    content = json.loads(results.to_json(EVERYTHING))
    first = content["rows"][0]
    assert first["workload"]["function"] == "sigmoid"
    assert len(first["cells"][OURS]["ns"]) == 3
    assert matplotlib.get_backend().lower() == "agg"
