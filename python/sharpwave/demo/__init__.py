"""The demo: sample a small language model, build a value store, try to exploit it, report.

models.py      the language model and the sentence encoder, found in installed packages
prompts.py     what the language model is asked for
sample.py      base stories, resumable
probes.py      the committed texts of the exploit table
table.py       scores, z-scores and AUCs over several splits
plots.py       (in ``sharpwave.viz``) value map, support histogram, heat map
report.py      report.json to report.html
pipeline.py    the steps in order, cached under one run directory
second.py      the second form: texts before, training, texts after
policy.py      the language model with an adapter: sampled, and read by its base
train.py       the GRPO run, resumable
measures.py    what is measured before and after, with intervals
train_report.py  claims, table, plot and page of the run
check.py       ``python -m sharpwave.demo.check report.json``, for continuous integration
"""
