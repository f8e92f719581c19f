"""The reward in the hands of trainers; each module needs its own extra.

trl.py           `SharpwaveCallback` for TRL's trainers, and `DenseCreditMixin`
dense.py         per-step pay as per-token credit
gymnasium.py     `ValueMemory`, a wrapper of an environment
sb3.py           `VecValueMemory` and `ValueMemoryCallback` for Stable-Baselines3
stepwise.py      `StepReward`: what the wrappers of environments share
observations.py  observations as steps of a store: `RandomFeatures`
"""
