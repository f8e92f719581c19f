"""The reward in the hands of trainers; each module needs its own extra.

trl.py      `SharpwaveCallback` for TRL's trainers, and `DenseCreditMixin`
dense.py    per-step pay as per-token credit
"""
