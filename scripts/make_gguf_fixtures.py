"""Builds tests/fixtures/gguf/: small real GGUF files, and what Transformers, tokenizers and SentencePiece make of the same.

Run with a Python that has gguf, numpy, safetensors, sentencepiece, torch and transformers 5.x:
`python scripts/make_gguf_fixtures.py`. Offline. The Rust tests read only the files written here. Input: the reference models
in tests/fixtures/models and the byte-level tokenizer in tests/fixtures/prompt.

    llama_q8_0.gguf, qwen3_q4_0.gguf   models with tokenizer and template; the first with rows permuted as llama.cpp wants them
    spm.gguf                           the vocabulary of a SentencePiece model (trained here, kept once it is there), no tensors
    expected.json                      logits of the models with their rounded weights; token ids of texts in twelve scripts
"""

import json
import tempfile
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
from safetensors.numpy import load_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, CohereTokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import SentencePieceExtractor, TikTokenConverter

from make_prompt_fixtures import SCRIPTS

ROOT = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
OUT = ROOT / "gguf"
TEXTS = {
    **SCRIPTS,
    "russian": "Почему небо голубое? Ответь коротко: 1 234 567 раз.",
    "burmese": "ကောင်းကင်က ဘာကြောင့် အပြာရောင် ဖြစ်တာလဲ။",
    "spaces": "  two  spaces,\n\n\tI'M here; they'LL see 3333 x²  \r\n end   ",
}
LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def ggml_name(name):
    stem, suffix = name.rsplit(".", 1)
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.{suffix}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[rest]}.{suffix}"


def neighbours(weight, heads):
    """Rows of each head from halves to neighbouring pairs."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def add_byte_level(writer, tokenizer_json, config, template, pre):
    tokenizer = json.loads(tokenizer_json.read_text())
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    by_id = {i: text for text, i in tokenizer["model"]["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([by_id[i] for i in range(len(by_id))])
    kinds = [gguf.TokenType.NORMAL if i not in added else
             gguf.TokenType.CONTROL if added[i]["special"] else gguf.TokenType.USER_DEFINED for i in range(len(by_id))]
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    ids = {text: i for i, text in by_id.items()}
    writer.add_bos_token_id(ids[config["bos_token"]])
    writer.add_eos_token_id(ids[config["eos_token"]])
    if template:
        writer.add_chat_template(template)


def make_model(family, kind):
    """Writes the file; returns logits after two prompts, computed with the weights as the file holds them."""
    source = ROOT / "models" / family
    config = json.loads((source / "config.json").read_text())
    path = OUT / f"{family}_{kind.name.lower()}.gguf"
    writer = gguf.GGUFWriter(path, config["model_type"])
    writer.add_name(family)
    writer.add_license("apache-2.0")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    tokens = json.loads((source / "tokenizer_config.json").read_text())
    template = (source / "chat_template.jinja").read_text()
    add_byte_level(writer, source / "tokenizer.json", tokens, template, "gpt-2")
    rounded = {}
    for name, weight in load_file(source / "model.safetensors").items():
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}.get(name.split(".")[-2])
        stored = neighbours(weight, heads) if heads and family == "llama" else weight
        if weight.ndim == 1:
            writer.add_tensor(ggml_name(name), stored)
            rounded[name] = torch.from_numpy(weight)
            continue
        writer.add_tensor(ggml_name(name), gguf.quantize(stored, kind), raw_dtype=kind)
        rounded[name] = torch.from_numpy(gguf.dequantize(gguf.quantize(weight, kind), kind).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = AutoModelForCausalLM.from_pretrained(source, attn_implementation="eager", dtype=torch.float32).eval()
    missing = model.load_state_dict(rounded, strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) <= {"lm_head.weight"}, missing
    prompts = json.loads((source / "expected.json").read_text())["prompts"][2:5:2]
    with torch.no_grad():
        logits = [[round(x, 5) for x in model(torch.tensor([ids])).logits[0, -1].tolist()] for ids in prompts]
    chat = AutoTokenizer.from_pretrained(source)
    messages = [{"role": "user", "content": TEXTS["arabic"]}]
    rendered = chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    texts = {name: chat.encode(text, add_special_tokens=False) for name, text in TEXTS.items()}
    return {"file": path.name, "prompts": prompts, "last_logits": logits, "rendered": rendered, "texts": texts}


def byte_level_ids():
    """Ids by `tokenizer.ggml.pre`, of tokenizers set up by Transformers for the models that have that name."""
    model = json.loads((ROOT / "prompt" / "bytelevel.tokenizer.json").read_text())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    bpe = models.BPE(vocab=model["vocab"], merges=merges)
    plain = Tokenizer(bpe)
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tiktoken = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, ignore_merges=True))
    split = TikTokenConverter.__init__.__defaults__
    pattern = next(default for default in split if isinstance(default, str) and "p{L}" in default)
    tiktoken.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    known = {
        "gpt-2": plain,
        "llama-bpe": tiktoken,
        "qwen2": Qwen2Tokenizer(vocab=model["vocab"], merges=merges)._tokenizer,
        "command-r": CohereTokenizer(vocab=model["vocab"], merges=merges)._tokenizer,
    }
    return {pre: {name: tokenizer.encode(text, add_special_tokens=False).ids for name, text in TEXTS.items()}
            for pre, tokenizer in known.items()}


def make_spm():
    """The vocabulary of a SentencePiece BPE model; ids by the conversion that Transformers uses, with and without prefix."""
    path = OUT / "spm.gguf"
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        lines = [text.replace("\n", " ").replace("\r", " ") for text in TEXTS.values()]
        corpus.write_text("\n".join(lines * 4))
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=f"{folder}/spm", vocab_size=900, model_type="bpe", byte_fallback=True,
            character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
            hard_vocab_limit=False, num_threads=1, minloglevel=2)
        spm = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/spm.model")
        vocab, scores, merges = None, None, None
        extracted = SentencePieceExtractor(f"{folder}/spm.model").extract(None)
    pieces = [spm.id_to_piece(i) for i in range(spm.vocab_size())]
    added = ["<|user|>", "<|assistant|>", "[INST]"]
    kinds = [gguf.TokenType.UNKNOWN if spm.is_unknown(i) else gguf.TokenType.CONTROL if spm.is_control(i) else
             gguf.TokenType.BYTE if spm.is_byte(i) else gguf.TokenType.NORMAL for i in range(len(pieces))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces + added)
    writer.add_token_scores([spm.get_score(i) for i in range(len(pieces))] + [-1000.0] * len(added))
    writer.add_token_types(kinds + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.USER_DEFINED])
    writer.add_bos_token_id(spm.bos_id())
    writer.add_eos_token_id(spm.eos_id())
    writer.add_unk_token_id(spm.unk_id())
    writer.add_chat_template("{{ bos_token }}[INST] {{ messages[0]['content'] }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    merges = extracted["merges"] if isinstance(extracted, dict) else extracted[-1]
    merges = [tuple(merge) for merge in merges]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>",
                                     fuse_unk=True, byte_fallback=True))
    result = {}
    for prefix in (True, False):
        spaces = normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
        strip = [decoders.Strip(" ", 1, 0)] if prefix else []
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
        ids = {name: tokenizer.encode(text, add_special_tokens=False).ids for name, text in TEXTS.items()}
        assert all(tokenizer.decode(ids[name]) == text for name, text in TEXTS.items())
        result["prefix" if prefix else "no_prefix"] = ids
    same = sum(spm.encode(text) == result["prefix"][name] for name, text in TEXTS.items())
    print(f"SentencePiece itself gives the same ids for {same} of {len(TEXTS)} texts")
    return result


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    kinds = {"llama": gguf.GGMLQuantizationType.Q8_0, "qwen3": gguf.GGMLQuantizationType.Q4_0}
    expected = {
        "texts": TEXTS,
        "models": {family: make_model(family, kind) for family, kind in kinds.items()},
        "byte_level": byte_level_ids(),
        "spm": make_spm(),
    }
    (OUT / "expected.json").write_text(json.dumps(expected, ensure_ascii=False))
    for path in sorted(OUT.iterdir()):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
