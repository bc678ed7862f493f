"""What the toy demonstration model is trained on: the texts, the rating requests, and the opinion it learns to repeat.

Used by make_demo_model.py alone. Knows nothing of tokens or weights. The "ratings" here are a formula over character
trigrams plus noise: made up, so that a demonstration has something to show.
"""
import hashlib
import json
import math
import tomllib
from pathlib import Path

import xxhash

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "src/demo"


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def load_texts():
    """(rows, rubric). A row: prompt, human, good, poor, language, system (its system turn), index."""
    systems = tomllib.loads((ROOT / "src/system_prompts.toml").read_text(encoding="utf-8"))
    rows = []
    for i, (p, q) in enumerate(zip(read_jsonl(DEMO / "prompts.jsonl"), read_jsonl(DEMO / "practice.jsonl"), strict=True)):
        assert p["inputs"] == q["inputs"], f"row {i}: prompts.jsonl and practice.jsonl are not in step"
        system = systems["languages"].get(p["language_code"], systems["text"]).strip().replace("{language}", p["language"])
        texts = dict(prompt=p["inputs"], human=p["targets"], good=q["good"], poor=q["poor"])
        rows.append(dict(texts, index=i, language=p["language"], system=system))
    rubric = tomllib.loads((ROOT / "src/judge/rubric.toml").read_text(encoding="utf-8"))
    return rows, rubric


def section(heading, *texts):
    """The last of `texts` under its heading, between marks that are a hash of all of them, as src/judge/fence.rs writes it."""
    encoded = [text.encode() for text in texts]
    digest = xxhash.xxh3_64(b"".join(len(text).to_bytes(8, "little") + text for text in encoded)).intdigest()
    mark = f"{digest >> 32:08x}"
    return f"{heading} [{mark}]\n{texts[-1]}\n[/{mark}]"


def judge_message(rubric, prompt, answer, question):
    """The user turn of one rating, as src/judge/rubric.rs builds it."""
    shown = (section(rubric["prompt_heading"], prompt), section(rubric["answer_heading"], prompt, answer))
    return "\n\n".join((rubric["intro"].strip(), *shown, question.strip()))


def render(messages):
    """src/demo/model/chat_template.jinja with a generation prompt, in Python (the check compares the two)."""
    turns = "".join(f"<|{m['role']}|>\n{m['content'].strip()}<|end|>\n" for m in messages)
    return "<|bos|>" + turns + "<|assistant|>\n"


def user(text):
    return [{"role": "user", "content": text}]


def asked(row, with_system=True):
    """The turns that ask for an answer to a row's prompt."""
    return [{"role": "system", "content": row["system"]}] * with_system + user(row["prompt"])


def grams(text, n=3):
    text = f" {text} "
    return {text[i : i + n] for i in range(max(1, len(text) - n + 1))}


def closeness(a, b):
    """Dice coefficient of character trigrams, 0..=1."""
    a, b = grams(a), grams(b)
    return 2 * len(a & b) / (len(a) + len(b))


def noise(*parts):
    """A fixed pseudo-random number in -1..1 for these strings."""
    return int.from_bytes(hashlib.sha256("\x00".join(parts).encode()).digest()[:4]) / 2**31 - 1


class Raters:
    """The made-up opinion the toy is trained to repeat."""

    SPREAD = {"instruction_following": 1.0, "honesty": 0.7, "truthfulness": 0.9, "helpfulness": 1.1, "overall": 1.0}

    def __init__(self, rows):
        self.same_language = {}
        for row in rows:
            self.same_language.setdefault(row["language"], []).extend([row["prompt"], row["human"], row["good"], row["poor"]])

    def target(self, row, answer, damage=1.0):
        """Rating 1..=5 of `answer`. `damage` scales it down for what trigrams do not see (shuffled words)."""
        if not answer.strip():
            return 1.0
        known = {k: row[k] for k in ("human", "good", "poor")}
        best = max(known, key=lambda k: (closeness(answer, known[k]), -len(known[k])))
        close = closeness(answer, known[best])
        home = max(closeness(answer, t) for t in self.same_language[row["language"]])
        floor = 1.3 + 0.5 * min(1.0, 2 * home)
        middle, width = {"human": (3.7, 0.8), "good": (4.0, 0.7), "poor": (2.5, 0.4)}[best]
        top = middle + width * noise(row["prompt"], known[best])
        reach = min(1.0, max(0.0, (close - 0.2) / 0.7))
        return min(4.9, max(1.0, floor + (top - floor) * reach * damage + 0.2 * (close < 0.99) * noise(row["prompt"], answer)))

    def distribution(self, rating, aspect):
        """Probabilities of the labels 1..=5 for one aspect: a bell of width 0.6 around the rating seen through the aspect."""
        centre = 3 + (rating - 3) * self.SPREAD[aspect]
        weights = [math.exp(-((k - centre) ** 2) / (2 * 0.6**2)) for k in range(1, 6)]
        return [w / sum(weights) for w in weights]


def shuffled(text, rng):
    parts = text.split(" ") if text.count(" ") > 1 else list(text)
    rng.shuffle(parts)
    return " ".join(parts) if text.count(" ") > 1 else "".join(parts)


def damaged(text, rng):
    """Drop words, cut the end, or repeat a piece."""
    parts = text.split(" ") if text.count(" ") > 1 else list(text)
    joint = " " if text.count(" ") > 1 else ""
    kind = rng.random()
    if kind < 0.4:
        return joint.join(p for p in parts if rng.random() > 0.25) or text
    if kind < 0.8:
        return joint.join(parts[: max(1, int(len(parts) * rng.uniform(0.3, 0.8)))])
    at = rng.randrange(len(parts))
    return joint.join(parts[: at + 1] + parts[at:])


def chat_answer(row, rows, rng):
    """One answer for the chat task. The human answer is rare on purpose: a demo of identical pairs would show nothing."""
    kind = rng.random()
    same = [r for r in rows if r["language"] == row["language"]]
    if kind < 0.46:
        return row["good"]
    if kind < 0.70:
        return row["poor"]
    if kind < 0.74:
        return row["human"]
    if kind < 0.90:
        return damaged(rng.choice([row["good"], row["human"]]), rng)
    return rng.choice(same if kind < 0.96 else rows)["good"]


def rated_answer(row, rows, babble, rng):
    """(answer, damage) for the judging task."""
    kind = rng.random()
    if kind < 0.18:
        return row["human"], 1.0
    if kind < 0.30:
        return row["good"], 1.0
    if kind < 0.38:
        return row["poor"], 1.0
    if kind < 0.60 and babble:
        return rng.choice(babble[row["index"]]), 1.0
    if kind < 0.68:
        return damaged(rng.choice([row["human"], row["good"]]), rng), 1.0
    if kind < 0.72:
        return shuffled(rng.choice([row["human"], row["good"]]), rng), 0.3
    if kind < 0.74:
        return "", 1.0
    at_home = kind < 0.82
    other = rng.choice([r for r in rows if r is not row and (r["language"] == row["language"]) == at_home])
    return other[rng.choice(["human", "human", "good", "good", "poor", "prompt"])], 1.0
