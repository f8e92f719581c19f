"""The reward in the hands of trainers; each module needs its own extra.

trl.py           `SharpwaveCallback` for TRL's trainers, and `DenseCreditMixin`
checkpoints.py   what callbacks keep in a trainer's checkpoint, and how a resumed run finds it
dense.py         per-step pay as per-token credit
gymnasium.py     `ValueMemory`, a wrapper of an environment
sharing.py       one store for several environments
sb3.py           `VecValueMemory` and `ValueMemoryCallback` for Stable-Baselines3
verl.py          a reward function, a reward manager, a checkpoint callback
openrlhf.py      a reward function in a file, and over HTTP
verifiers.py     a reward as an async function of task and trace
pointwise.py     `Together`: what trainers ask one sample at a time, scored in batches
stepwise.py      `StepReward`: what the wrappers of environments share
torchrl.py       `ValueMemoryTransform`, of environments and replay buffers
observations.py  observations as steps of a store: `RandomFeatures`
"""
