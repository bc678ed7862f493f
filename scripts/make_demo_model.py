#!/usr/bin/env python3
"""Train the toy model behind `pairwright make --demo` and write it to src/demo/model/.

This is a TOY, for a demonstration and for tests that need no download. It has about 0.4 million parameters, it has
learned the few dozen rows of src/demo/ by heart, and its "ratings" imitate a formula in demo_texts.py. It knows nothing,
and nothing it says about an answer means anything. What it is good for: it has the files and the shape of a real
model (llama, Hugging Face layout), it babbles in the right script, and it rates with a clear label distribution, so a
whole run of Pairwright finishes in seconds and yields pairs, ties and winners on both sides.

It learns two things, from the same texts and through the same chat template a run uses:
  chat     prompt -> one of several answers in src/demo/practice.jsonl (good, poor, damaged, sometimes another language)
  judging  the message of src/judge/rubric.toml -> one digit, with a soft target: a bell around a rating which
           `Raters.target` in demo_texts.py computes from how close the answer is to the known ones, plus noise fixed per answer

Needs torch, xxhash and transformers (the latter only for the check at the end). One CPU core, about eight minutes:
    python scripts/make_demo_model.py            # train, write, check
    python scripts/make_demo_model.py --check    # only the check, on the files that are there
One seed drives everything, on one thread with deterministic operations. Other torch builds or CPUs may round differently,
so expect the same behaviour and counts near those of the last check, not the same bytes.
"""
import argparse
import json
import math
import random
import time

import torch
import torch.nn.functional as F
from torch import nn

from demo_texts import DEMO, Raters, asked, chat_answer, judge_message, load_texts, rated_answer, render, user

OUT = DEMO / "model"
SEED = 20260
SPECIAL = ["<|bos|>", "<|eos|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
BOS, EOS, PAD, END = 0, 1, 2, 6
DIGITS = ["1", "2", "3", "4", "5"]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": BOS,
    "dtype": "bfloat16",
    "eos_token_id": [END, EOS],
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 96,
    "initializer_range": 0.02,
    "intermediate_size": 160,
    "max_position_embeddings": 2048,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pad_token_id": PAD,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": 1536,
}


# ------------------------------------------------------------------------------------------------------ tokenizer
def train_tokenizer(rows, rubric):
    """Byte-level BPE: all 256 bytes are tokens, so any text can be written; each digit is a token of its own."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    words = Regex(r" ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    texts = [row[k] for row in rows for k in ("prompt", "human", "good", "poor")]
    texts += sorted({row["system"] for row in rows}) + 3 * [rubric["intro"] + "\n".join(a["question"] for a in rubric["aspect"])]
    texts += sorted({row["language"] for row in rows})
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"], special_tokens=SPECIAL, show_progress=False, max_token_length=15,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    assert tokenizer.get_vocab_size() == CONFIG["vocab_size"]
    return tokenizer


# ---------------------------------------------------------------------------------------------------------- model
class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.h, self.kv, self.d = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        self.q_proj = nn.Linear(c["hidden_size"], self.h * self.d, bias=False)
        self.k_proj = nn.Linear(c["hidden_size"], self.kv * self.d, bias=False)
        self.v_proj = nn.Linear(c["hidden_size"], self.kv * self.d, bias=False)
        self.o_proj = nn.Linear(self.h * self.d, c["hidden_size"], bias=False)

    def forward(self, x, cos, sin, mask, past):
        """x [B, T, hidden]; cos, sin [B, 1, T, D]; mask bool [B, 1, T, P+T]; past: (k, v) each [1, Hkv, P, D] or None."""
        b, t, _ = x.shape
        q, k, v = (p(x).view(b, t, -1, self.d).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        q, k = q * cos + turn(q) * sin, k * cos + turn(k) * sin
        new = (k, v)
        if past is not None:
            k, v = (torch.cat([p.expand(b, -1, -1, -1), n], 2) for p, n in zip(past, new))
        k, v = (z.repeat_interleave(self.h // self.kv, 1) for z in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1)), new


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.up_proj = nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.down_proj = nn.Linear(c["intermediate_size"], c["hidden_size"], bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = Mlp(c)

    def forward(self, x, cos, sin, mask, past):
        a, new = self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        x = x + a
        return x + self.mlp(self.post_attention_layernorm(x)), new


class Toy(nn.Module):
    """A llama decoder whose parameter names are Hugging Face's once `model.` is put before them."""

    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.freq = c["rope_theta"] ** (-torch.arange(0, c["head_dim"], 2) / c["head_dim"])
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.05)

    def forward(self, ids, positions=None, mask=None, past=None):
        """ids [B, T] -> (hidden [B, T, C], per layer (k, v)). `mask` bool [B, 1, T, P+T]; causal if not given."""
        t = ids.shape[1]
        positions = torch.arange(t)[None] if positions is None else positions
        mask = torch.ones(t, t, dtype=torch.bool).tril()[None, None] if mask is None else mask
        angle = positions[:, None, :, None] * torch.cat([self.freq, self.freq])
        x, kept = self.embed_tokens(ids), []
        for i, layer in enumerate(self.layers):
            x, new = layer(x, angle.cos(), angle.sin(), mask, None if past is None else past[i])
            kept.append(new)
        return self.norm(x), kept

    def logits(self, hidden):
        return hidden @ self.embed_tokens.weight.T


def turn(x):
    a, b = x.chunk(2, -1)
    return torch.cat([-b, a], -1)


# ------------------------------------------------------------------------------------------------------- training
def chat_batch(tokenizer, rows, rng, size):
    """ids [B, T], weights [B, T]: of the loss for predicting ids[:, t]. The system turn is there seven times in ten."""
    texts, heads = [], []
    for row in rng.choices(rows, k=size):
        heads.append(render(asked(row, rng.random() < 0.7)))
        texts.append(heads[-1] + chat_answer(row, rows, rng) + "<|end|>")
    encoded = [e.ids for e in tokenizer.encode_batch(texts)]
    cuts = [len(e.ids) for e in tokenizer.encode_batch(heads)]
    width = max(map(len, encoded))
    ids = torch.tensor([e + [PAD] * (width - len(e)) for e in encoded])
    weights = torch.tensor([[0.05 if t < c else 1.0 for t in range(len(e))] + [0.0] * (width - len(e)) for e, c in zip(encoded, cuts)])
    return ids, weights


def chat_loss(model, ids, weights):
    hidden, _ = model(ids[:, :-1])
    losses = F.cross_entropy(model.logits(hidden).flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()


def common(lists):
    """Length of the longest common prefix."""
    n = 0
    while all(len(x) > n and x[n] == lists[0][n] for x in lists):
        n += 1
    return n


class JudgeBatches:
    """Judging examples that share what they can: the intro once per batch, prompt and answer once for two questions."""

    def __init__(self, tokenizer, rows, rubric, raters):
        self.tokenizer, self.rows, self.rubric, self.raters = tokenizer, rows, rubric, raters
        first, second = (self.encode(row["prompt"], "x")[0] for row in (rows[0], rows[-1]))
        self.shared = common([first, second])
        self.prefix = torch.tensor([first[: self.shared]])
        self.digits = torch.tensor([tokenizer.token_to_id(d) for d in DIGITS])

    def encode(self, prompt, answer):
        """The token ids of the five requests for one answer."""
        texts = [render(user(judge_message(self.rubric, prompt, answer, a["question"]))) for a in self.rubric["aspect"]]
        return [e.ids for e in self.tokenizer.encode_batch(texts)]

    def loss(self, model, babble, rng, size):
        examples, targets = [], []
        for row in rng.choices(self.rows, k=size):
            answer, damage = rated_answer(row, self.rows, babble, rng)
            full = self.encode(row["prompt"], answer)
            cut = common(full)
            picks = rng.sample(range(len(full)), 2)
            examples.append((full[0][self.shared : cut], [full[p][cut:] for p in picks]))
            rating = self.raters.target(row, answer, damage)
            targets += [self.raters.distribution(rating, self.rubric["aspect"][p]["name"]) for p in picks]
        logits = self.forward(model, examples)
        return -(torch.tensor(targets) * logits.log_softmax(-1)[:, self.digits]).sum(-1).mean()

    def forward(self, model, examples):
        """examples: (context ids, [suffix ids]) -> logits [number of suffixes, V] of the token after each suffix."""
        width = max(len(c) + sum(map(len, q)) for c, q in examples)
        ids = torch.full((len(examples), width), PAD)
        segment = torch.full((len(examples), width), -1)
        positions, ends = torch.zeros(len(examples), width, dtype=torch.long), []
        for i, (context, suffixes) in enumerate(examples):
            at = 0
            for s, part in enumerate([context, *suffixes]):
                start = self.shared + (len(context) if s else 0)
                ids[i, at : at + len(part)] = torch.tensor(part)
                segment[i, at : at + len(part)] = s
                positions[i, at : at + len(part)] = torch.arange(start, start + len(part))
                at += len(part)
                ends += [(i, at - 1)] if s else []
        sees = (segment[:, None, :] == 0) | (segment[:, None, :] == segment[:, :, None])
        sees &= torch.ones(width, width, dtype=torch.bool).tril()
        mask = torch.cat([torch.ones(len(examples), width, self.shared, dtype=torch.bool), sees], 2)[:, None]
        _, past = model(self.prefix)
        hidden, _ = model(ids, positions, mask, past)
        rows, columns = zip(*ends)
        return model.logits(hidden[list(rows), list(columns)])


@torch.no_grad()
def sample_answers(model, tokenizer, heads, temperature, limit=64):
    """One sampled answer per rendered head; recomputes everything at each step, which is fine at this size."""
    encoded = [e.ids for e in tokenizer.encode_batch(heads)]
    ids = torch.full((len(encoded), max(map(len, encoded)) + limit), PAD)
    lengths = torch.tensor([len(e) for e in encoded])
    for i, e in enumerate(encoded):
        ids[i, : len(e)] = torch.tensor(e)
    done, starts, each = torch.zeros(len(encoded), dtype=torch.bool), lengths.clone(), torch.arange(len(encoded))
    for _ in range(limit):
        hidden, _ = model(ids[:, : lengths.max()])
        chosen = torch.multinomial((model.logits(hidden[each, lengths - 1]) / temperature).softmax(-1), 1)[:, 0]
        done |= (chosen == END) | (chosen == EOS)
        ids[each[~done], lengths[~done]] = chosen[~done]
        lengths += (~done).long()
        if done.all():
            break
    return [tokenizer.decode(ids[i, s:n].tolist()).strip() for i, (s, n) in enumerate(zip(starts, lengths))]


def train(model, tokenizer, rows, rubric, phases):
    """Phase one: chat alone. Phase two: judging, with a chat batch every fourth step, on ever newer babble of its own."""
    rng = random.Random(SEED)
    judge = JudgeBatches(tokenizer, rows, rubric, Raters(rows))
    decays = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    optimiser = torch.optim.AdamW([{"params": decays, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}], betas=(0.9, 0.97))
    babble, began, shown = {row["index"]: [] for row in rows}, time.time(), {}
    for phase, steps in enumerate(phases):
        peak = (5e-3, 4e-3)[phase]
        for step in range(steps):
            rate = peak * min(1, (step + 1) / 30) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            for group in optimiser.param_groups:
                group["lr"] = rate
            if phase == 1 and step % 100 == 0:
                for temperature in (0.7, 0.7, 0.7, 1.2):
                    heads = [render(asked(row)) for row in rows]
                    for row, text in zip(rows, sample_answers(model, tokenizer, heads, temperature)):
                        babble[row["index"]].append(text)
            chat = phase == 0 or step % 4 == 3
            loss = chat_loss(model, *chat_batch(tokenizer, rows, rng, 24)) if chat else judge.loss(model, babble, rng, 32)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            key = "chat" if chat else "judge"
            shown[key] = 0.95 * shown.get(key, loss.item()) + 0.05 * loss.item()
            if step % 40 == 39:
                losses = {k: round(v, 3) for k, v in shown.items()}
                print(f"phase {phase + 1} step {step + 1}/{steps} {time.time() - began:.0f} s", losses, flush=True)


# --------------------------------------------------------------------------------------------------------- output
def write(model, tokenizer):
    from safetensors.torch import save

    tensors = {f"model.{k}": v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    (OUT / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    compact = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    (OUT / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    generation = {"bos_token_id": BOS, "eos_token_id": [END, EOS], "pad_token_id": PAD, "do_sample": True, "temperature": 0.7}
    tokens = {
        "bos_token": SPECIAL[BOS], "eos_token": SPECIAL[END], "pad_token": SPECIAL[PAD],
        "clean_up_tokenization_spaces": False, "model_max_length": CONFIG["max_position_embeddings"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    for name, value in (("config", CONFIG), ("generation_config", generation), ("tokenizer_config", tokens)):
        (OUT / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- check
def ratings(model, tokenizer, rubric, prompt, answer):
    """(rating 1..=5, lowest label mass) by the transformers model, the way src/judge reads it."""
    texts = [render(user(judge_message(rubric, prompt, answer, a["question"]))) for a in rubric["aspect"]]
    digits, values, masses = [tokenizer.convert_tokens_to_ids(d) for d in DIGITS], [], []
    for text in texts:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        p = model(ids).logits[0, -1].softmax(-1)[digits]
        masses.append(p.sum().item())
        values.append((p / p.sum() @ torch.arange(1.0, 6.0)).item())
    return sum(values) / len(values), min(masses)


@torch.no_grad()
def check(rows, rubric):
    """Load the written files with transformers, answer every prompt at temperature 0.7, rate, and count."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(OUT, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(OUT)
    for with_system in (False, True):
        counts, masses, known, human, made = {"human": 0, "model": 0, "tie": 0, "identical": 0}, [], 0, [], []
        for row in rows:
            turns = asked(row, with_system)
            ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
            assert ids == tokenizer(render(turns), add_special_tokens=False)["input_ids"], "template and render() differ"
            torch.manual_seed(SEED + row["index"])
            sampling = dict(do_sample=True, temperature=0.7, top_k=0, max_new_tokens=96)
            out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **sampling)
            answer = tokenizer.decode(out[0, len(ids):], skip_special_tokens=True).strip()
            (h, m1), (g, m2) = (ratings(model, tokenizer, rubric, row["prompt"], a) for a in (row["human"], answer))
            winner = "identical" if answer == row["human"] else "tie" if abs(h - g) < 0.1 else "human" if h > g else "model"
            counts[winner] += 1
            known += answer in (row["human"], row["good"], row["poor"])
            masses += [m1, m2]
            human.append(h)
            made.append(g)
            print(f"  {row['language'][:10]:10} {h:.2f} {g:.2f} {winner:9} {answer!r}")
        mean = lambda x: sum(x) / len(x)
        print(f"system turn {with_system}: {counts}, pairs at margin 0.1: {counts['human'] + counts['model']} of {len(rows)}, "
              f"word for word from the training texts: {known}, mean rating human {mean(human):.2f} model {mean(made):.2f}, "
              f"label mass min {min(masses):.4f} mean {mean(masses):.4f}")
    wrong = [ratings(model, tokenizer, rubric, r["prompt"], rows[(r["index"] + 7) % len(rows)]["human"])[0] for r in rows]
    empty = [ratings(model, tokenizer, rubric, r["prompt"], "")[0] for r in rows]
    print(f"human answer of another language instead: mean rating {mean(wrong):.2f}; empty answer: {mean(empty):.2f}")
    sizes = {p.name: p.stat().st_size for p in sorted(OUT.iterdir())}
    print(sizes, "in all", sum(sizes.values()), "bytes")


def main():
    arguments = argparse.ArgumentParser(description="Train, write and check the toy demonstration model.")
    arguments.add_argument("--check", action="store_true", help="do not train: check the files that are there")
    arguments.add_argument("--steps", type=int, nargs=2, default=[260, 680], metavar=("CHAT", "JUDGE"), help="of each phase")
    options = arguments.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    rows, rubric = load_texts()
    if not options.check:
        tokenizer, model = train_tokenizer(rows, rubric), Toy(CONFIG)
        print(f"{sum(p.numel() for p in model.parameters())} parameters")
        train(model, tokenizer, rows, rubric, options.steps)
        write(model, tokenizer)
    check(rows, rubric)


if __name__ == "__main__":
    main()
