"""Fuzzing of everything that reads what a stranger wrote: `make fuzz`, or `python -m tests.fuzz --help`.

A target (`target.Target`) is a function `fuzz_x(data: bytes)`. It catches the errors that are the contract of the code
under test, and asserts properties of every result. Anything else that it raises is a finding, and so are a case that
takes longer than `--limit` seconds, a dead process, and memory above the limit.

Cases come from two places: mutated seeds (`mutation`), and a grammar where mutated bytes would not get past the first
line of a parser (`Target.generate`). Each case is reproducible from its seed, target and number. Seeds are made by
code; the repository holds no corpus.
"""
