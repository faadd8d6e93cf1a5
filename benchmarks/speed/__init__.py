"""The speed benchmarks: what is measured, who does it, how it is compared. `benchmarks/run.py` is the command.

cases.py        what a case, a contender and a target are; the list of all cases
forward.py …    the cases, one file for each group of rows of docs/performance.md
work_*.py       how one library does a piece of work
worker.py       a process that does the work and times it
measuring.py    contenders in turn, round after round, and whether they computed the same
fresh.py        what only a new process can show: time to the first embedding, peak memory
report.py       from measurements to rows: ratios, verdicts, text
page.py docs.py the same as an HTML page and as the table in docs/performance.md
scaling.py      how time grows with S, B, L, H and threads, and where it goes
"""
