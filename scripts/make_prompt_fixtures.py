"""Builds tests/fixtures/prompt/: small tokenizers, templates of our own, and what Transformers makes of dialogues with them.

Run with a Python that has transformers 5.x: `python scripts/make_prompt_fixtures.py`. Offline. The Rust tests read only the
files written here. A tokenizer that exists is kept (training a Unigram model does not give the same file twice): delete
it to build it anew. The templates (templates/*.jinja, committed beside the output) are input; what Transformers renders with
each of them is written by tests/support/compare_templates.py, which this script runs last.
"""

import datetime
import json
import sys
from pathlib import Path

import transformers.utils.chat_template_utils as chat_template_utils
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "prompt"
DATE = datetime.datetime(2026, 3, 7)

SCRIPTS = {
    "english": "Why is the sky blue? Isn't it odd: 12,345 times!",
    "arabic": "لماذا السماء زرقاء؟ اكتب جملةً قصيرة.",
    "hindi": "आसमान नीला क्यों होता है? संक्षेप में लिखिए।",
    "thai": "ทำไมท้องฟ้าถึงเป็นสีฟ้า ตอบสั้น ๆ",
    "amharic": "ሰማዩ ለምን ሰማያዊ ነው? በአጭሩ መልስ።",
    "chinese": "天空为什么是蓝色的？请简短回答。",
    "japanese": "空はなぜ青いのですか？短く答えて。",
    "korean": "하늘은 왜 파란가요? 짧게 답하세요.",
    "tamil": "வானம் ஏன் நீலமாக உள்ளது?",
    "yoruba": "Kí ló dé tí ojú ọ̀run fi jẹ́ àwọ̀ búlúù? \U0001f469\U0001f3fd\u200d\U0001f680 e\u0301",
}

# kind -> special tokens, tokens added without the special flag
SPECIALS = {
    "bytelevel": (
        ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
         "<|eot_id|>", "<|start_of_role|>", "<|end_of_role|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>",
         "<｜User｜>", "<｜Assistant｜>"],
        ["<think>", "</think>", "<tool_call>", "<table>"],
    ),
    "metaspace": (["<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>"], ["[INST]", "[/INST]"]),
    "prepend": (["<unk>", "<s>", "</s>"], ["<|user|>", "<|assistant|>", "<|system|>"]),
    "unigram": (["<unk>", "<s>", "</s>", "<|user|>", "<|bot|>"], ["<extra>"]),
    "wordlevel": (["[UNK]", "[PAD]", "[BOS]", "[EOS]", "[USER]", "[BOT]"], []),
}
NAMED = {
    "bytelevel": {"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>"},
    "metaspace": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "prepend": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "unigram": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "wordlevel": {"bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": "[PAD]", "unk_token": "[UNK]"},
}
# template -> tokenizer, extra variables per case
TEMPLATES = {
    "llama3_date": ("bytelevel", [{}, {"date_string": "26 Jul 2024"}]),
    "chatml": ("bytelevel", [{}]),
    "qwen_thinking": ("bytelevel", [{}, {"enable_thinking": False}]),
    "command_json": ("bytelevel", [{}, {"settings": {"b": [1, 2.5, 1e-07, 1e20], "a": None, "ü<&>": "é\"\n\u2028"}}]),
    "granite_date": ("bytelevel", [{}]),
    "phi_roles": ("bytelevel", [{}]),
    "deepseek_like": ("bytelevel", [{}]),
    "generation_mask": ("bytelevel", [{}]),
    "macros": ("bytelevel", [{}]),
    "mistral_inst": ("metaspace", [{}]),
    "gemma_turns": ("metaspace", [{}]),
    "zephyr": ("prepend", [{}]),
    "namespaces": ("unigram", [{}]),
    "bracketed": ("wordlevel", [{}]),
}


def build(kind):
    corpus = list(SCRIPTS.values()) + ["user assistant system Today Date Knowledge you are a short helpful answer. 0 1 2 3 4 5"] * 4
    specials, plain = SPECIALS[kind]
    if kind == "bytelevel":
        tokenizer = Tokenizer(models.BPE())
        split = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    elif kind in ("metaspace", "prepend"):
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        if kind == "metaspace":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        # Only Latin, Arabic and Devanagari letters get tokens of their own: the other scripts go through byte fallback.
        corpus = [text for text in corpus if max(text) < "\u0980"]
        fallback = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=460, special_tokens=["<unk>"] + fallback, show_progress=False)
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(vocab_size=360, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False)
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    if kind in ("metaspace", "prepend"):
        # The trainer flags the fallback bytes as special added tokens; in real models they are plain vocabulary.
        data = json.loads(tokenizer.to_str())
        data["added_tokens"] = [token for token in data["added_tokens"] if not token["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(data))
    # One special token per sentencepiece-like kind is matched after normalisation: look-alikes can reach it.
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=(text == "<|bot|>")) for text in specials])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in plain])
    return tokenizer


def dialogues():
    s = SCRIPTS
    turn = lambda role, content: {"role": role, "content": content}
    return [
        [turn("user", s["english"])],
        [turn("system", s["yoruba"]), turn("user", s["arabic"])],
        [turn("user", s["hindi"]), turn("assistant", s["thai"]), turn("user", s["amharic"])],
        [turn("system", "you are\n\n" + s["chinese"]), turn("user", "  " + s["japanese"] + "\n"), turn("assistant", s["korean"] + "  "), turn("user", "\n\n" + s["tamil"])],
        [turn("user", "a < b > c [x] \"quoted\" \\ 5 % & <b>é</b>\ttab")],
        [turn("assistant", "1"), turn("user", "2")],
    ]


def wrap(kind):
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str((OUT / f"{kind}.tokenizer.json").read_text()), **NAMED[kind])


def chat_cases(wrapped):
    for name, (kind, extras) in TEMPLATES.items():
        template = (OUT / "templates" / f"{name}.jinja").read_text()
        for index, messages in enumerate(dialogues()):
            for extra_index, extra in enumerate(extras):
                if extra_index and index not in (0, 2):
                    continue
                case = {"template": name, "tokenizer": kind, "dialogue": index, "add_generation_prompt": (index + extra_index) % 2 == 0 or index == 2, "extra": extra}
                arguments = dict(chat_template=template, add_generation_prompt=case["add_generation_prompt"], **extra)
                try:
                    case["text"] = wrapped[kind].apply_chat_template(messages, tokenize=False, **arguments)
                    case["ids"] = wrapped[kind].apply_chat_template(messages, tokenize=True, return_dict=False, **arguments)
                except Exception as error:
                    case["error"] = str(error)
                yield case


def main():
    class PinnedDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return DATE

    chat_template_utils.datetime = PinnedDatetime
    compact = dict(ensure_ascii=False, separators=(",", ":"))
    for kind in SPECIALS:
        path = OUT / f"{kind}.tokenizer.json"
        if not path.exists():
            path.write_text(json.dumps(json.loads(build(kind).to_str()), **compact) + "\n")
        (OUT / f"{kind}.config.json").write_text(json.dumps(NAMED[kind], **compact) + "\n")
    wrapped = {kind: wrap(kind) for kind in SPECIALS}
    texts = [
        {"tokenizer": kind, "script": name, "ids": (ids := wrapped[kind].encode(text, add_special_tokens=False)), "decoded": wrapped[kind].decode(ids)}
        for kind in SPECIALS
        for name, text in SCRIPTS.items()
    ]
    cases = list(chat_cases(wrapped))
    lines = [f'{{"date":"{DATE:%Y-%m-%d}","scripts":{json.dumps(SCRIPTS, **compact)},', '"dialogues":[']
    lines.append(",\n".join(json.dumps(dialogue, **compact) for dialogue in dialogues()) + '],\n"texts":[')
    lines.append(",\n".join(json.dumps(text, **compact) for text in texts) + '],\n"chats":[')
    lines.append(",\n".join(json.dumps(case, **compact) for case in cases) + "]}")
    (OUT / "cases.json").write_text("\n".join(lines) + "\n")
    sys.path.insert(0, str(OUT.parent.parent / "support"))
    import compare_templates

    compare_templates.main(OUT / "templates")
    print(len(texts), "texts,", len(cases), "chats,", sum("error" in case for case in cases), "of them refused")


if __name__ == "__main__":
    main()
