"""Builds tests/fixtures/bench/: chrF++ as sacrebleu has it, and the loss of human answers as Transformers has it.

Run with a Python that has sacrebleu 2.6.0, transformers 5.x and torch: `python scripts/make_bench_fixtures.py`. Offline. The Rust
tests read only the files written here.
"""

import json
import random
from pathlib import Path

import sacrebleu
import torch
import transformers
from sacrebleu.metrics import CHRF
from transformers import AutoModelForCausalLM, AutoTokenizer

FIXTURES = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
OUT = FIXTURES / "bench"

# Ours: what scripts, marks and white space can do to a count.
PAIRS = [
    ("Zeven dagen heeft een week.", "Een week heeft zeven dagen."),
    ("القاهرة هي عاصمة مصر.", "عاصمة مصر هي القاهرة، وهي أكبر مدنها."),
    ("नई दिल्ली भारत की राजधानी है।", "भारत की राजधानी नई दिल्ली है।"),
    ("น้ำเดือดที่ ๑๐๐ องศา", "น้ำเดือดที่อุณหภูมิ ๑๐๐ องศาเซลเซียส"),
    ("አዲስ አበባ የኢትዮጵያ ዋና ከተማ ናት።", "የኢትዮጵያ ዋና ከተማ አዲስ አበባ ናት።"),
    ("東京は日本の首都です。", "日本の首都は東京です。"),
    ("수도는 서울입니다.", "대한민국의 수도는 서울입니다."),
    ("Ọjọ́ méje ni ó wà nínú ọ̀sẹ̀ kan.", "Ọ̀sẹ̀ kan ní ọjọ́ méje."),
    ("(hi) \"quoted\", and ... so on!", "(hi), \"quoted\" and so on..."),
    ("👩🏽‍🚀 → 🚀 → 🌕", "👩🏽‍🚀 → 🚀 → 🌕 → 🏠"),
    ("e\u0301 is not é", "é is not e\u0301"),
    ("a\u00a0b\u2003c\u0085d\u001ce", "a b c d e"),
    ("  lead and  trail \n\tlines\n", "lead and trail lines"),
    ("", "nothing was said"),
    ("something was said", ""),
    ("a", "a"),
    ("x", "y"),
    ("Київ — столиця України.", "Столиця України — місто Київ."),
    ("המים רותחים במאה מעלות", "מים רותחים ב־100 מעלות צלזיוס"),
    ("Η πρωτεύουσα είναι η Αθήνα;", "Η πρωτεύουσα της Ελλάδας είναι η Αθήνα."),
    ("ရေသည် ၁၀၀ ဒီဂရီတွင် ဆူပွက်သည်။", "ရေသည် ၁၀၀ ဒီဂရီစင်တီဂရိတ်တွင် ဆူသည်။"),
    ("Same same same same same", "Same same"),
    ("Same same", "Same same same same same"),
    ("don't stop-gap 'quoted' #tag @me $5 50%", "dont stop gap quoted tag me 5 50"),
]

MODELS = ["llama", "qwen3", "gemma2"]
ANSWERS = [
    ("Hoeveel dagen heeft een week?", "Zeven dagen."),
    ("Wat is water?", "Water is een stof van waterstof en zuurstof.\n\n- het kookt bij 100 graden\n"),
    ("Noem een kleur.", "Blauw – en ook e\u0301en beetje 東京 👩🏽‍🚀"),
    ("Wie schrijft?", "  spaties vooraan, <|im_end|> en </s> als gewone tekst"),
    ("ما عاصمة مصر؟", "القاهرة."),
]


def chrf():
    random.seed(7)
    pairs = list(PAIRS)
    for path in sorted((FIXTURES / "udhr").glob("*.txt")):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        for line in random.sample(lines, 3):
            words = line.split(" ")
            random.shuffle(words)
            pairs.append((" ".join(words[: max(1, 2 * len(words) // 3)]), line))
    metric = CHRF(word_order=2)
    texts, references = [a for a, _ in pairs], [b for _, b in pairs]
    rows = [{"text": a, "reference": b, "score": metric.sentence_score(a, [b]).score} for a, b in pairs]
    corpus = metric.corpus_score(texts, [references]).score
    return {"made_with": f"sacrebleu {sacrebleu.__version__}", "signature": str(metric.get_signature()), "rows": rows, "corpus": corpus}


def losses():
    found = {"made_with": f"transformers {transformers.__version__}, torch {torch.__version__}", "rows": ANSWERS, "models": {}}
    for name in MODELS:
        tokenizer = AutoTokenizer.from_pretrained(FIXTURES / "models" / name)
        model = AutoModelForCausalLM.from_pretrained(FIXTURES / "models" / name, dtype=torch.float32, attn_implementation="eager").eval()
        rows = []
        for prompt, answer in ANSWERS:
            text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
            before = tokenizer(text, add_special_tokens=False)["input_ids"]
            # As text: what looks like a control token is none.
            behind = tokenizer(answer, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            ids = torch.tensor([before + behind])
            labels = torch.tensor([[-100] * len(before) + behind])
            with torch.no_grad():
                loss = model(input_ids=ids, labels=labels).loss.double().item()
            size = len(answer.encode("utf-8"))
            bits = loss * len(behind) / torch.log(torch.tensor(2.0, dtype=torch.float64)).item()
            rows.append({"num_prompt_tokens": len(before), "num_tokens": len(behind), "loss": loss, "bits": bits, "bytes": size})
        total = sum(row["bits"] for row in rows) / sum(row["bytes"] for row in rows)
        found["models"][name] = {"rows": rows, "bits_per_byte": total}
    return found


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    for name, made in [("chrf", chrf()), ("loss", losses())]:
        (OUT / f"{name}.json").write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
