"""The demo: sample a small language model, build a value store, try to exploit it, train on its reward, report.

``make demo``, or ``sharpwave demo`` in a checkout. The exploit table is `sharpwave.probe`'s.

command.py     what ``sharpwave demo`` does with its options
prompts.py     what the language model is asked for
sample.py      base stories, resumable
encoder.py     texts to embedded episodes
pipeline.py    the first form's steps in order, cached under one run directory
second.py      the second form: texts before, training, texts after
policy.py      the language model with an adapter: sampled, and read by its base
train.py       the GRPO run, resumable
measures.py    what is measured before and after, with intervals
train_report.py  claims, table, plot and page of the run
check.py       ``python -m examples.demo.check report.json``, for continuous integration
"""
