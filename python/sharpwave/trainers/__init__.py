"""The reward for trainers of language models. Each module needs the extra of its trainer."""
