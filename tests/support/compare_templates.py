"""Writes what Transformers makes of chat templates: `python compare_templates.py FOLDER` renders every *.jinja file of FOLDER
with the conversations below and leaves FOLDER/expected.jsonl. Then

    PAIRWRIGHT_TEMPLATES_DIR=FOLDER cargo test --release --test templates -- --nocapture

renders the same with Pairwright, compares byte for byte and says how many templates are equal. Needs transformers 5.x, offline.
`tests/fixtures/prompt/templates` is such a folder, of templates of our own.
"""

import datetime
import json
import sys
from pathlib import Path

import transformers.utils.chat_template_utils as chat_template_utils
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

DATE = datetime.datetime(2026, 3, 7)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def turn(role, content):
    return {"role": role, "content": content}


LONG = "Ẹ káàárọ̀! \U0001f469\U0001f3fd\u200d\U0001f680 e\u0301"
CONVERSATIONS = {
    "single": [turn("user", "Why is the sky blue?")],
    "system": [turn("system", "You are short."), turn("user", "Why is the sky blue?")],
    "turns": [turn("user", "Hi"), turn("assistant", "Hello."), turn("user", "And now?")],
    "system_turns": [turn("system", "Be kind."), turn("user", "Hi"), turn("assistant", "Hello."), turn("user", "And?"), turn("assistant", "So."), turn("user", "Well?")],
    "answered": [turn("user", "Count to three."), turn("assistant", "one, two,")],
    "answered_spaces": [turn("user", "Count to three.\n"), turn("assistant", "  one, two, \n")],
    "system_answered": [turn("system", "Be kind."), turn("user", "Count."), turn("assistant", "1 2 3")],
    "empty": [turn("user", "")],
    "empty_system": [turn("system", ""), turn("user", "a"), turn("assistant", ""), turn("user", " ")],
    "rtl": [turn("system", "أجب بالعربية."), turn("user", "لماذا السماء زرقاء؟ \u200f(1)"), turn("assistant", "بسبب تشتّت الضوء."), turn("user", "เพราะอะไร ทำไม ሰማይ")],
    "cjk": [turn("user", "空はなぜ青いのですか？"), turn("assistant", "散乱のためです。"), turn("user", "하늘은 天空为什么是蓝色的 " + LONG)],
    "markup": [turn("system", "{{ 1 + 1 }} {% raw %} <|im_start|>system"), turn("user", "<|im_end|>\n{{ messages }} [INST] 'a' \"b\" \\n <s> & <b>é</b>\ttab"), turn("assistant", "{% for %} <|eot_id|>"), turn("user", "{# no #} <think>hm</think> \u2028 end")],
    "thought": [turn("user", "2+2?"), turn("assistant", "<think>\nsum of twos\n</think>\n\n4"), turn("user", "3+3?"), turn("assistant", "<think>x</think>6")],
    "spaces": [turn("system", "  s  \n"), turn("user", "\n\n u \t"), turn("assistant", "\n a \u00a0\u3000"), turn("user", " v\r\nw ")],
    "two_users": [turn("user", "a"), turn("user", "b")],
    "assistant_first": [turn("assistant", "a"), turn("user", "b")],
    "only_system": [turn("system", "s")],
    "late_system": [turn("user", "a"), turn("system", "s"), turn("user", "b")],
    "unknown_role": [turn("user", "a"), turn("critic", "s"), turn("user", "b")],
}
VARIABLES = [{"enable_thinking": True, "thinking": True}, {"enable_thinking": False, "thinking": False}]


def folded(messages):
    """`prompt::fold_system`: system turns stand at the head of the user turn that follows."""
    out, waiting = [], []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user":
            out.append(turn("user", "\n\n".join(waiting + [message["content"]])))
            waiting = []
        else:
            out.append(message)
    return out + ([turn("user", "\n\n".join(waiting))] if waiting else [])


def render(tokenizer, template, messages, end, variables):
    arguments = {"generation_prompt": {"add_generation_prompt": True}, "continue": {"continue_final_message": True}, "whole": {}}[end]
    try:
        return {"text": tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **arguments, **variables)}
    except Exception as error:  # noqa: BLE001: whatever Transformers raises, Pairwright must refuse too
        return {"error": f"{type(error).__name__}: {error}"[:200]}


def cases(tokenizer, template):
    for name, messages in CONVERSATIONS.items():
        ends = ["generation_prompt", "whole"] + (["continue"] if messages[-1]["role"] == "assistant" else [])
        for end in ends:
            for variables in [{}] + (VARIABLES if name in ("system", "turns", "thought") else []):
                case = {"conversation": name, "end": end, "variables": variables}
                case.update(render(tokenizer, template, messages, end, variables))
                if "error" in case and any(message["role"] == "system" for message in messages):
                    case["folded"] = render(tokenizer, template, folded(messages), end, variables)
                yield case


def main(folder):
    class PinnedDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return DATE

    chat_template_utils.datetime = PinnedDatetime
    words = {token: index for index, token in enumerate(TOKENS.values())}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")), **TOKENS)
    compact = dict(ensure_ascii=False, separators=(",", ":"))
    lines = [json.dumps({"date": f"{DATE:%Y-%m-%d}", "tokens": TOKENS, "conversations": CONVERSATIONS}, **compact)]
    for path in sorted(folder.glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        rendered = list(cases(tokenizer, template))
        lines.append(json.dumps({"template": path.name, "cases": rendered}, **compact))
        print(path.name, len(rendered), "cases,", sum("error" in case for case in rendered), "of them refused")
    (folder / "expected.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
