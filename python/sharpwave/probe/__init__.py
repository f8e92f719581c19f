"""The exploit table: what parroting, lists, word salad and the like earn in a store.

columns.py   the columns: ways to give an episode one number, ablations among them
probes.py    the committed texts (probes.json)
table.py     z-scores against base episodes, over several splits; AUCs
summary.py   rows, margins, intervals, claims and findings as plain data
claims.py    what an interval says about a limit: holds, fails, undecided
report.py    report.json to report.html and plots
own.py       the table of one's own store: ``sharpwave probe``
"""
