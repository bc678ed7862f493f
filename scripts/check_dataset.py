#!/usr/bin/env python3
"""Checks a written dataset folder with the libraries it is meant for: datasets, pyarrow, PyYAML, TRL's DPO and ORPO trainers.

Run by hand, offline, in an environment that has them:  python scripts/check_dataset.py DATASET_FOLDER
Exit status 0 if every check holds. Nothing in the Rust tests depends on it.
"""

import json
import math
import os
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("HF_HOME", tempfile.mkdtemp(prefix="check_dataset_"))

import pyarrow.parquet as parquet
import yaml
from datasets import Features, List, Value, load_dataset
from trl.data_utils import is_conversational, maybe_extract_prompt

MESSAGES = List({"role": Value("string"), "content": Value("string")})
RESERVED = {"tools", "chat_template_kwargs", "image", "images"}


def check(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def front_matter(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, yaml_text, _ = text.split("---\n", 2)
    return yaml.safe_load(yaml_text)


def check_default(folder, card):
    dataset = load_dataset(str(folder), "default")
    check(load_dataset(str(folder)).keys() == dataset.keys(), "the configuration `default` is the default")
    for split, rows in dataset.items():
        print(f"default/{split}: {len(rows)} rows")
        for column in ("prompt", "chosen", "rejected"):
            check(rows.features[column] == MESSAGES, f"{split}.{column} is a list of messages")
        check(not RESERVED & set(rows.column_names), f"{split} uses no column name that TRL reserves")
        for row in rows:
            roles = [[message["role"] for message in row[column]] for column in ("prompt", "chosen", "rejected")]
            assert roles == [["user"], ["assistant"], ["assistant"]], roles
            assert row["chosen"][0]["content"].strip() and row["rejected"][0]["content"].strip()
            assert row["chosen"][0]["content"].strip() != row["rejected"][0]["content"].strip()
            assert row["margin"] > 0 and abs(row["chosen_rating"] - row["rejected_rating"] - row["margin"]) < 1e-9
            assert is_conversational(row)
            assert maybe_extract_prompt(row) == row, "the prompt is explicit already"
        check(True, f"{split}: every row is explicit conversational for TRL")
    info = next(info for info in card["dataset_info"] if info["config_name"] == "default")
    sizes = {split["name"]: split["num_examples"] for split in info["splits"]}
    check(sizes == {split: len(rows) for split, rows in dataset.items()}, "the card's row counts hold")
    return dataset


def check_raw(folder, dataset):
    raw = load_dataset(str(folder), "raw")["train"]
    print(f"raw/train: {len(raw)} rows")
    check(isinstance(raw.features["verdicts"], List), "raw.verdicts is a list of structs")
    check(raw.features["ratings"] == List(Value("float64")), "raw.ratings is a list of floats")
    places = [(row, place) for row in raw for place in row["pairs"]]
    check(len(places) == sum(map(len, dataset.values())), "raw has as many pairs as default")
    check(all((row["outcome"] == "pair") == bool(row["pairs"]) for row in raw), "rows with the outcome `pair` have pairs")
    texts = {
        (pair["id"], pair["chosen"][0]["content"], pair["rejected"][0]["content"])
        for rows in dataset.values()
        for pair in rows
    }
    for row, place in places:
        chosen, rejected = (row["generations"][place[side]] for side in ("chosen_index", "rejected_index"))
        assert (row["id"], chosen, rejected) in texts
    for row in (row for row in raw if row["outcome"] == "pair"):
        first = row["pairs"][0]
        assert (row["chosen_index"], row["rejected_index"]) == (first["chosen_index"], first["rejected_index"])
    check(True, "every pair points at its answers in raw")


def check_files(folder, card):
    for path in sorted(folder.glob("*/*.parquet")):
        metadata = parquet.read_metadata(path).metadata
        lock = json.loads(metadata[b"pairwright"])
        check({"seed", "source", "created"} <= lock.keys(), f"{path.name} carries the run's lock")
        features = Features.from_dict(json.loads(metadata[b"huggingface"])["info"]["features"])
        bare = Features.from_arrow_schema(parquet.read_schema(path).remove_metadata())
        check(features == bare, f"{path.parent.name}/{path.name}: noted features are those of the columns")
    sizes = {"default": "data", "raw": "raw"}
    for info in card["dataset_info"]:
        size = sum(path.stat().st_size for path in (folder / sizes[info["config_name"]]).glob("*.parquet"))
        check(info["download_size"] == size, f"download_size of {info['config_name']}")


def byte_tokenizer():
    """A tokenizer of bytes with a template that keeps messages as they are, and the size of its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(alphabet + ["<eos>"])}
    bytes_only = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    return tokenizer, len(vocabulary)


def check_training(dataset):
    """Two steps each of TRL's DPO and ORPO trainers, with a tiny random model over bytes: rows go in as they were loaded."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    tokenizer, vocabulary_size = byte_tokenizer()
    rows = dataset["train"].select(range(min(8, len(dataset["train"]))))
    first = dataset["train"][0]
    expected = f"[user]{first['prompt'][0]['content']}<eos>[assistant]"
    shape = LlamaConfig(
        vocab_size=vocabulary_size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    settings = dict(max_steps=2, per_device_train_batch_size=2, report_to=[], use_cpu=True, bf16=False)
    with tempfile.TemporaryDirectory() as folder:
        # DPOTrainer loads its reference model again, by path.
        LlamaForCausalLM(shape).save_pretrained(f"{folder}/model")
        trainer = DPOTrainer(
            model=f"{folder}/model",
            args=DPOConfig(output_dir=folder, **settings),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        prepared = trainer.train_dataset
        check({"prompt_ids", "chosen_ids", "rejected_ids"} <= set(prepared.column_names), "DPOTrainer prepared the rows")
        check(tokenizer.decode(prepared[0]["prompt_ids"]) == expected, "the prompt that DPO renders is ours, byte for byte")
        loss = trainer.train().training_loss
        check(math.isfinite(loss), f"two DPO steps ran, loss {loss:.4f}")
    with tempfile.TemporaryDirectory() as folder:
        trainer = ORPOTrainer(
            model=LlamaForCausalLM(shape),
            args=ORPOConfig(output_dir=folder, **settings),
            train_dataset=rows,
            processing_class=tokenizer,
        )
        prepared = trainer.train_dataset[0]
        check(tokenizer.decode(prepared["prompt_input_ids"]).startswith(expected), "the prompt that ORPO renders is ours")
        check(first["chosen"][0]["content"] in prepared["chosen"], "ORPOTrainer keeps the chosen text")
        loss = trainer.train().training_loss
        check(math.isfinite(loss), f"two ORPO steps ran, loss {loss:.4f}")


def say_versions():
    from importlib.metadata import version

    names = ("datasets", "pyarrow", "trl", "transformers", "tokenizers", "torch")
    print("with " + ", ".join(f"{name} {version(name)}" for name in names))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    card = front_matter(folder)
    print(json.dumps({key: card[key] for key in card if key != "dataset_info"}, ensure_ascii=False))
    if any(config["config_name"] == "default" for config in card["configs"]):
        dataset = check_default(folder, card)
        check_raw(folder, dataset)
        check_files(folder, card)
        check_training(dataset)
    else:
        check_raw(folder, {})
        check_files(folder, card)
        check(load_dataset(str(folder))["train"].num_rows > 0, "without pairs, `raw` is what loads without being named")
    say_versions()
    print("all checks hold")


if __name__ == "__main__":
    main()
