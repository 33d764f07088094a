"""Copies of a vectorised loop for operands larger than the caches.

`AHEAD` prefetches the elements that come next. `STREAMED` has non-temporal stores, which bypass the
caches. Ordinary stores would first read every line of the output into a cache that is too small to
keep it. LLVM vectorises no loops with prefetches, and non-temporal stores only if every single
element is aligned like a vector. So the copies are made from the optimised text, where the vectors
are known.
"""

import itertools
import re

import llvmlite.binding as llvm

HOT_LOOP, AHEAD, STREAMED = "hot_loop", "hot_loop_ahead", "hot_loop_stream"

DISTANCE = 2048  # bytes from a vector to the line prefetched for it (bench/NOTES.md)

PREFETCH_IR = "\ndeclare void @llvm.prefetch.p0(ptr, i32, i32, i32)\n"

LINE = 64  # bytes of a cache line

_LOAD = re.compile(r"= load <(\d+) x (\w+)>, ptr (%[\w.]+), align 1\b.*")
_STORE = re.compile(r"store <(\d+) x (\w+)> (%[\w.]+, ptr (%[\w.]+)), align 1\b")
_BYTES = {"half": 2, "float": 4, "double": 8, "i8": 1, "i16": 2, "i32": 4, "i64": 8}


def add_copies(module: llvm.ModuleRef) -> llvm.ModuleRef:
    """Define `AHEAD` and `STREAMED`, if `module` declares them, as copies of `HOT_LOOP`.

    `STREAMED` is for outputs that are aligned like its vectors.
    """
    text = str(module)
    found = False
    for name, edited in ((AHEAD, _with_prefetches), (STREAMED, _past_the_caches)):
        declared = re.search(rf"(?m)^declare .*@{name}\(.*\n", text)
        if declared:
            start = re.search(rf"(?m)^define internal (?:fastcc )?void @{HOT_LOOP}\(", text)
            begin = start.end()  # type: ignore[union-attr] # defined where a copy is declared
            body = text[begin : text.index("\n}\n", begin) + 3]
            body, more = edited(body, text)
            text = text.replace(declared[0], "") + f"\ndefine internal void @{name}({body}{more}"
            found = True
    return llvm.parse_assembly(text) if found else module


def _past_the_caches(body: str, text: str) -> tuple[str, str]:
    node = 1 + max(map(int, re.findall(r"(?m)^!(\d+) =", text)))

    def edit(store: re.Match[str]) -> str:
        lanes, kind, operands, _ = store.groups()
        size = int(lanes) * _BYTES[kind]
        return f"store <{lanes} x {kind}> {operands}, align {size}, !nontemporal !{node}"

    return _STORE.sub(edit, body), f"\n!{node} = !{{i32 1}}\n"


def _with_prefetches(body: str, text: str) -> tuple[str, str]:
    number = itertools.count()

    def edit(access: re.Pattern[str], pointer: int, write: int) -> str:
        # All vectors of an operand come one after the other, so that a line needs only one of them.
        position = itertools.count()

        def prefetch(found: re.Match[str]) -> str:
            size = int(found[1]) * _BYTES[found[2]]
            if next(position) * size % LINE:
                return found[0]
            there = f"%ahead.{next(number)}"
            return f"""{found[0]}
  {there} = getelementptr i8, ptr {found[pointer]}, i64 {DISTANCE}
  call void @llvm.prefetch.p0(ptr {there}, i32 {write}, i32 3, i32 1)"""

        return access.sub(prefetch, body)

    body = edit(_LOAD, 3, 0)
    body = edit(re.compile(rf"{_STORE.pattern}.*"), 4, 1)
    return body, "" if "declare void @llvm.prefetch.p0(" in text else PREFETCH_IR
