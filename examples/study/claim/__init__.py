"""The third part of the study: rewards that can be optimised long and stay meant.

gold.py        the gold measures of the tables, each validated on labelled texts
validate.py    that validation: the AUC of each candidate
arms.py        the rewards of `study/claim.toml`: judges, cosine, probe, store, bare, protected and in conjunction
best_of_n.py   what each reward selects among completions of the base
"""
