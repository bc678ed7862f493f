"""Builds tests/fixtures/rope.json: what Transformers makes of rotary settings, in both spellings of config.json.

Run with a Python that has transformers 5.x: `python scripts/make_rope_fixtures.py`. Offline. The Rust test reads only the
file written here. `max_len` is the longest sequence of a run: only `dynamic` looks at it.
"""

import json
from pathlib import Path

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "rope.json"

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}

# name -> rope_type, theta, head_dim, max_position_embeddings, max_len, the scaling's own fields
CASES = {
    "default": ("default", 10000.0, 64, 2048, 2048, {}),
    "default, large base, wide heads": ("default", 1e6, 128, 32768, 4096, {}),
    "default, head of 80": ("default", 500000.0, 80, 4096, 4096, {}),
    "linear": ("linear", 10000.0, 64, 4096, 4096, {"factor": 2.5}),
    "dynamic below the context": ("dynamic", 10000.0, 64, 2048, 100, {"factor": 2.0}),
    "dynamic at the context": ("dynamic", 10000.0, 64, 2048, 2048, {"factor": 2.0}),
    "dynamic above the context": ("dynamic", 10000.0, 64, 2048, 5000, {"factor": 2.0}),
    "llama3": ("llama3", 500000.0, 128, 131072, 131072, LLAMA3),
    "llama3, small heads": ("llama3", 10000.0, 32, 8192, 8192, {**LLAMA3, "factor": 32.0, "original_max_position_embeddings": 1024}),
    "yarn": ("yarn", 1e6, 128, 131072, 131072, {"factor": 4.0, "original_max_position_embeddings": 32768}),
    "yarn, ends not rounded": ("yarn", 1e6, 64, 131072, 4096,
                               {"factor": 4.0, "original_max_position_embeddings": 32768, "truncate": False}),
    "yarn, attention factor given": ("yarn", 10000.0, 64, 16384, 4096,
                                     {"factor": 8.0, "original_max_position_embeddings": 2048, "attention_factor": 0.75}),
    "yarn, both mscales": ("yarn", 10000.0, 64, 163840, 4096,
                           {"factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 0.707,
                            "mscale_all_dim": 1.3}),
    "yarn, mscale without its partner": ("yarn", 10000.0, 64, 163840, 4096,
                                         {"factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 0.707}),
    "yarn, mscale_all_dim zero": ("yarn", 10000.0, 64, 163840, 4096,
                                  {"factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0,
                                   "mscale_all_dim": 0}),
    "yarn, betas": ("yarn", 10000.0, 96, 65536, 4096,
                    {"factor": 16.0, "original_max_position_embeddings": 4096, "beta_fast": 24.0, "beta_slow": 2.0}),
    "yarn, factor missing": ("yarn", 10000.0, 64, 32768, 4096,
                             {"factor": None, "original_max_position_embeddings": 4096}),
    "yarn, factor below one": ("yarn", 10000.0, 64, 4096, 4096,
                               {"factor": 0.5, "original_max_position_embeddings": 4096}),
}


def spellings(kind, theta, fields):
    """The settings as newer and as older files write them."""
    return {
        "rope_parameters": {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **fields}},
        "rope_scaling": {"rope_theta": theta, "rope_scaling": None if kind == "default" else {"type": kind, **fields}},
        "rope_scaling, rope_type": {
            "rope_theta": theta,
            "rope_scaling": None if kind == "default" else {"rope_type": kind, **fields},
        },
    }


def frequencies(config, max_len):
    """Speeds and attention factor after a forward pass over `max_len` positions."""
    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        module = LlamaRotaryEmbedding(config)
        speeds, factor = module.inv_freq, module.attention_scaling
    else:
        speeds, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=max_len)
    return [float(speed) for speed in speeds], float(factor)


def main():
    cases = []
    for name, (kind, theta, head_dim, positions, max_len, fields) in CASES.items():
        for spelling, settings in spellings(kind, theta, fields).items():
            config = {"head_dim": head_dim, "max_position_embeddings": positions, **settings}
            base = {"hidden_size": 4 * head_dim, "num_attention_heads": 4, "num_hidden_layers": 1}
            speeds, factor = frequencies(LlamaConfig(**base, **json.loads(json.dumps(config))), max_len)
            cases.append({"name": f"{name} ({spelling})", "config": config, "max_len": max_len,
                          "inv_freq": speeds, "attention_factor": factor})
    OUT.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
