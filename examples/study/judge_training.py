"""A small judge, LoRA-trained on yes/no questions whose answers are known by construction.

A text is the beginning of a base story with an ending set after it, happy or unhappy: whether the ending is happy is
known without anyone judging it. Endings and stories of the test are not among those of the training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.study.judges import NO, YES, answer_ids
from examples.study.policy import Lora, Policy
from examples.study.setting import of_device

DIRECTORY = Path("runs/study/judge")
REPORT = Path("study/judge.json")
QUESTION = "Story: {text}\nDoes this story end happily? Answer:"

HAPPY = (
    "In the end they all hugged each other and laughed.",
    "At last he was home, and his mother kissed him with joy.",
    "They won the prize and danced all evening.",
    "She thanked her friends, and they ate cake together in the sun.",
    "The doctor smiled and said that the child was well again.",
    "From that day on the neighbors were the best of friends.",
    "He found the ring, and she said that she would marry him.",
    "The rain came, the crops grew, and nobody was hungry any more.",
    "Everyone cheered when the lost boat came into the harbor.",
    "The girl got her wish and sang the whole way home.",
    "They forgave each other and were glad.",
    "The puppy licked her face and she was happy again.",
    "The town gave a feast, and the music played until morning.",
    "He was proud of his work, and so was his father.",
    "They had found a home, and it was warm and bright.",
    "The king set the prisoners free, and they wept with happiness.",
)
UNHAPPY = (
    "In the end they all left each other and wept.",
    "He never came home, and his mother waited in vain.",
    "They lost everything and sat in the cold street.",
    "She had no friends left, and she ate alone in the dark.",
    "The doctor shook his head and said that it was too late.",
    "From that day on the neighbors hated each other.",
    "He lost the ring, and she told him that she loved another man.",
    "No rain came, the crops died, and the people starved.",
    "Everyone cried when they heard that the boat had sunk.",
    "The girl's wish was refused, and she walked home in tears.",
    "They never spoke again and died as enemies.",
    "The puppy was dead, and nothing could comfort her.",
    "The town burned to the ground, and nobody could help.",
    "He was ashamed of what he had done, and so was his father.",
    "They had no home, and the night was cold and long.",
    "The king had the prisoners killed, and their wives wept.",
)
TEST_ENDINGS = 4


@dataclass(frozen=True)
class Trained:
    """A judge, and the share of the test's questions that it answers right."""

    policy: Policy
    accuracy: float
    before: float


def questions(base: list[tuple[str, str]], test: bool, number: int, seed: int) -> list[tuple[str, bool]]:
    """Texts and whether they end happily, half of each."""
    rng = np.random.default_rng((seed, int(test)))
    half = len(base) // 2
    stories = base[half:] if test else base[:half]
    part = slice(-TEST_ENDINGS, None) if test else slice(None, -TEST_ENDINGS)
    out = []
    for n in range(number):
        words = stories[int(rng.integers(len(stories)))][1].split()
        start = " ".join(words[: int(rng.integers(10, 30))])
        happy = n % 2 == 0
        endings = (HAPPY if happy else UNHAPPY)[part]
        out.append((f"{start}. {endings[int(rng.integers(len(endings)))]}", happy))
    return out


def train(
    directory: Path, base: list[tuple[str, str]], device: str, steps: int = 60, rows: int = 8, rate: float = 5e-4
) -> Trained:
    """The judge in ``directory``, trained there on base stories if it is not; its accuracy goes to `REPORT`."""
    from sharpwave.text.packages import load_language_model, smollm2_path

    model, tokenizer = load_language_model(smollm2_path(), device)
    judge = Policy(model, tokenizer, Lora(), seed=100)
    yes, no = (answer_ids(judge, answers) for answers in (YES, NO))
    test = questions(base, True, 64, 1)
    file = directory / "adapter.pt"
    if file.is_file():
        saved: dict[str, Any] = torch.load(file, weights_only=True)
        judge.load_adapter(saved["adapter"])
        return Trained(judge, saved["accuracy"], saved["before"])
    before = accuracy(judge, test)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=rate, weight_decay=0.0)
    known = questions(base, False, steps * rows, 0)
    for first in range(0, len(known), rows):
        texts, answers = zip(*known[first : first + rows], strict=True)
        scores = judge.next_log_probs([QUESTION.format(text=t) for t in texts])
        odds = scores[:, yes].logsumexp(-1) - scores[:, no].logsumexp(-1)
        target = torch.tensor([float(a) for a in answers], device=odds.device)
        # The answer itself must become one of the two words, or the odds would be those of noise.
        said = torch.cat([scores[:, yes], scores[:, no]], 1).logsumexp(-1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, target) - 0.1 * said.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = accuracy(judge, test)
    directory.mkdir(parents=True, exist_ok=True)
    torch.save({"adapter": judge.adapter(), "accuracy": after, "before": before}, file)
    report = {"questions": len(test), "accuracy": after, "accuracy_before": before, "steps": steps}
    written = of_device(REPORT.parent, str(judge.device)) / REPORT.name
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return Trained(judge, after, before)


def accuracy(judge: Policy, asked: list[tuple[str, bool]]) -> float:
    """Share of the questions that are answered right."""
    yes, no = (answer_ids(judge, answers) for answers in (YES, NO))
    right = 0
    for first in range(0, len(asked), 16):
        texts, answers = zip(*asked[first : first + 16], strict=True)
        with torch.no_grad():
            scores = judge.next_log_probs([QUESTION.format(text=t) for t in texts])
        odds = scores[:, yes].logsumexp(-1) - scores[:, no].logsumexp(-1)
        right += sum(bool(o > 0) == a for o, a in zip(odds, answers, strict=True))
    return right / len(asked)
