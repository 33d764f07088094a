"""The steps that make up a function of whole rows, like softmax."""

STEPS = {
    "larger": (2, 1),
    "prepare": (1, 3),
    "term": (4, 2),
    "start": (1, 2),
    "add": (4, 2),
    "collect": (4, 2),
    "merge": (4, 2),
    "finish": (2, 2),
    "result": (4, 1),
}
"""The scalar functions that make up a function of rows: numbers of arguments and results.

==========  =============================================  =========================
larger      two elements                                   the larger
prepare     largest element of the row                     3 parameters of `term`
term        element, parameters                            term, as a pair
start       largest element                                initial sum of a chunk
add         term, sum                                      sum
collect     sum of previous chunks, sum of a chunk         sum of chunks
merge       two sums of chunks                             sum of both
finish      sum of the row                                 divisor, as a pair
result      term, divisor                                  element of the result
==========  =============================================  =========================

Rows are padded with an infinity that `larger` never prefers to an element, and whose term is 0.
This is -inf, unless the class of the steps has an attribute ``padding = inf``.
"""
