"""A copy of a vectorised kernel whose stores go past the caches.

Results that no cache could keep would only be read into it first, line by line. LLVM does not
vectorise stores that are marked non-temporal unless every single element is aligned as a
vector is. So the copy is made of the optimised text, where the vectors are known.
"""

import re

import llvmlite.binding as llvm

KERNEL, STREAMED = "kernel", "kernel_stream"

FENCES = {"x86_64": "call void @llvm.x86.sse.sfence()"}
"""What orders such stores before later ones, by architecture; others do without such stores."""

_STORE = re.compile(r"store <(\d+) x (\w+)> ([^\n]*), align 1\b")
_BYTES = {"half": 2, "float": 4, "double": 8, "i8": 1, "i16": 2, "i32": 4, "i64": 8}


def add_streaming(module: llvm.ModuleRef) -> llvm.ModuleRef:
    """Define the function that `module` declares as `STREAMED`, if it does.

    It is as `KERNEL`, for outputs that are aligned as its vectors are.
    """
    text = str(module)
    declared = re.search(rf"(?m)^declare .*@{STREAMED}\(.*\n", text)
    if not declared:
        return module
    start = re.search(rf"(?m)^define internal (?:fastcc )?void @{KERNEL}\(", text)
    body = text[start.end() : text.index("\n}\n", start.end()) + 3]
    node = 1 + max(map(int, re.findall(r"(?m)^!(\d+) =", text)))

    def past_the_caches(store: re.Match) -> str:
        lanes, kind, rest = store.groups()
        size = int(lanes) * _BYTES[kind]
        return f"store <{lanes} x {kind}> {rest}, align {size}, !nontemporal !{node}"

    copy = f"define internal void @{STREAMED}({_STORE.sub(past_the_caches, body)}"
    text = text.replace(declared[0], "") + f"\n{copy}\n!{node} = !{{i32 1}}\n"
    return llvm.parse_assembly(text)
