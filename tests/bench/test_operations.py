"""The committed counts of instructions are those of the code that is made now."""

import itertools

import pytest
from assembly import assembly, row_assembly
from kinds import WITH_SEVERAL_RESULTS

from bench import machine_code, operations
from fastact._declarations.records import ACTIVATIONS, of_rows
from fastact._machine.formats import FLOATS
from fastact._machine.targets import BASELINES

TEXT = operations.RESULT.read_text(encoding="utf-8")
COMMITTED = operations.read(TEXT)


def kinds():
    """Each function, target and format.

    Compiling takes most of the time. So one target and format are tested by default, for functions
    of rows and one function of each kind, whose code other tests read too. Code that is like
    another's, but for conversions or a few instructions, is tested for few functions.
    """
    typical = {*WITH_SEVERAL_RESULTS, *of_rows()}
    for name, target, form in itertools.product(operations.names(), BASELINES, FLOATS):
        usual = (target, form) == ("x86-64-v3", "float32") and name in typical
        like_another = (
            target == "x86-64"
            or form == "bfloat16"
            or (form == "float16" and target not in ("x86-64-v3", "x86-64-v4"))
        )
        if not like_another or getattr(ACTIVATIONS.get(name), "measured_in_full", False):
            yield pytest.param(name, target, form, marks=[] if usual else [pytest.mark.exhaustive])


def belongs_to(line, name, form):
    """Whether a line is that of a function, or of one of its loops."""
    return line[0].split(",")[0] == name and line[1] == form


@pytest.mark.skipif(
    operations.compiler(TEXT) != operations.COMPILER,
    reason=f"the counts are for {operations.compiler(TEXT)}, this is {operations.COMPILER}",
)
@pytest.mark.parametrize(("name", "target", "form"), list(kinds()))
def test_code_has_the_committed_number_of_instructions(name, target, form, monkeypatch):
    """If it is to have another, write the file again: ``python -m bench.operations``."""
    monkeypatch.setattr(operations, "assembly", lambda d, *others: assembly(d.name, *others))
    monkeypatch.setattr(operations, "row_assembly", row_assembly)
    committed = [line for line in COMMITTED[target] if belongs_to(line, name, form)]
    assert operations.lines(name, form, BASELINES[target]) == committed


def test_the_file_lists_every_function_format_and_target():
    assert list(COMMITTED) == list(BASELINES)
    for lines in COMMITTED.values():
        listed = [(line[0].split(",")[0], line[1]) for line in lines]
        assert list(dict.fromkeys(listed)) == [
            (name, form) for name in operations.names() for form in FLOATS
        ]


def test_the_file_is_read_as_it_is_written():
    lines = {"x86-64": [["relu", "float32", "4", "1", "2", "3.25", "0", "0"]], "aarch64": []}
    text = operations.markdown(lines)
    assert operations.read(text) == lines
    assert operations.compiler(text) == operations.COMPILER


def test_selected_counts_are_printed_and_nothing_is_written(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(operations, "RESULT", tmp_path / "operations.md")
    selected = ["relu", "--formats", "float32", "--targets", "aarch64", "x86-64-v3"]
    assert operations.main(selected) == 0
    printed = operations.read("## " + capsys.readouterr().out)
    assert {target: [line[:2] for line in lines] for target, lines in printed.items()} == {
        "aarch64": [["relu", "float32"]],
        "x86-64-v3": [["relu", "float32"]],
    }
    assert not operations.RESULT.exists()


@pytest.mark.parametrize(
    ("architecture", "code", "counted"),
    [
        # instructions, arithmetic, divisions, constants, spills
        ("x86_64", "\tvfmadd213ps\t%ymm1, %ymm2, %ymm3", (1, 1, 0, 0, 0)),
        ("x86_64", "\tvdivpd\t.LCPI0_1(%rip), %ymm2, %ymm3", (1, 1, 1, 1, 0)),
        ("x86_64", "\tandnps\t32(%rsp), %xmm3", (1, 1, 0, 0, 1)),
        ("x86_64", "\tvmovups\t%ymm3, -96(%rsp)", (1, 0, 0, 0, 1)),
        ("x86_64", "\tkmovw\t%k1, -128(%rsp)", (1, 0, 0, 0, 1)),
        ("x86_64", "\tvbroadcastss\t.LCPI0_1(%rip), %zmm14", (1, 0, 0, 1, 0)),
        ("x86_64", "\tvbroadcastss\t(%rdi,%rbp), %zmm20", (1, 0, 0, 0, 0)),
        ("x86_64", "\tvmovaps\t%zmm7, %zmm3", (1, 0, 0, 0, 0)),
        ("x86_64", "\tvmovaps\t%zmm7, %zmm3 {%k1}", (1, 1, 0, 0, 0)),
        ("x86_64", "\tmovdqa\t%xmm5, %xmm11", (1, 0, 0, 0, 0)),
        ("x86_64", "\tvpmovzxwd\t(%rdi,%rax,2), %ymm0", (1, 1, 0, 0, 0)),
        ("x86_64", "\tvpxor\t%xmm3, %xmm3, %xmm3", (1, 0, 0, 0, 0)),
        ("x86_64", "\txorps\t%xmm3, %xmm3", (1, 0, 0, 0, 0)),
        ("x86_64", "\txorps\t%xmm3, %xmm4", (1, 1, 0, 0, 0)),
        ("x86_64", "\taddq\t$32, %rax\n\tjne\t.LBB0_1", (2, 0, 0, 0, 0)),
        ("x86_64", ".LBB0_1:\n\t.p2align\t4\n\tnop  # 4-byte Reload", (1, 0, 0, 0, 0)),
        ("aarch64", "\tfmla\tv27.4s, v6.4s, v29.4s", (1, 1, 0, 0, 0)),
        ("aarch64", "\tfdiv\tv4.2d, v0.2d, v4.2d", (1, 1, 1, 0, 0)),
        ("aarch64", "\tmov\tv27.16b, v5.16b", (1, 0, 0, 0, 0)),
        ("aarch64", "\tstp\tq1, q0, [sp, #240]", (1, 0, 0, 0, 1)),
        ("aarch64", "\tldr\tq27, [x3, x4]", (1, 0, 0, 0, 0)),
        ("aarch64", "\tldr\tq0, [x8, :lo12:.LCPI0_1]", (1, 0, 0, 1, 0)),
        ("aarch64", "\tfmov\tv0.4s, #-1.00000000", (1, 0, 0, 1, 0)),
        ("aarch64", "\tdup\tv11.2d, x13", (1, 0, 0, 1, 0)),
        ("aarch64", "\tsubs\tx8, x8, #16\n\tb.ne\t.LBB0_1", (2, 0, 0, 0, 0)),
    ],
)
def test_instructions_are_of_the_right_kinds(architecture, code, counted):
    assert machine_code.counts(code, architecture) == counted


def test_innermost_loops_are_found():
    assert machine_code.JUMP.match("\tjne\t.LBB1_4")[2] == ".LBB1_4"
    assert machine_code.JUMP.match("\tcbnz\tx7, .LBB1_4")[2] == ".LBB1_4"
    assert machine_code.JUMP.match("\tb.ne\t.LBB1_4")[2] == ".LBB1_4"
    for unconditional in ("\tjmp\t.LBB1_4", "\tb\t.LBB1_4"):
        assert not machine_code.JUMP.match(unconditional)
    body = "f:\n.LBB0_1:\n\tnop\n\tje\t.LBB0_2\n.LBB0_3:\n\tnop\n\tjne\t.LBB0_3\n.LBB0_2:\n\tret"
    body += "\n.LBB0_4:\n\tnop\n.LBB0_5:\n\tjne\t.LBB0_4"
    assert list(machine_code.loops(body)) == [".LBB0_3:\n\tnop\n\tjne\t.LBB0_3"]
