"""The reward in the hands of trainers of language models; each module needs its own extra."""
