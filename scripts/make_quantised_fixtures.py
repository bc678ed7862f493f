"""Builds tests/fixtures/quantised/: one tiny llama in every published quantised format that Pairwright reads, and a gpt_oss.

Run with a Python that has torch, transformers 5.x, safetensors and compressed-tensors: `python scripts/make_quantised_fixtures.py`.
Offline. Each folder has config.json, model.safetensors, and logits.json: what Transformers computes with the dequantised
weights. Who dequantises is somebody else than Pairwright: compressed-tensors for its own formats, for AWQ and for block-wise
fp8; Transformers for mxfp4; torch's 8-bit floats for the others. GPTQ is packed here from integers, as AutoGPTQ documents it, and its dequantised weights
are computed from these integers before they are packed.
"""

import json
from pathlib import Path

import torch
from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
from compressed_tensors.entrypoints.convert.converters.fp8block_dequantizer import FP8BlockDequantizer
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file
from transformers import GptOssConfig, GptOssForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "quantised"
CONFIG = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
          "tie_word_embeddings": True, "rope_theta": 10000.0}
IDS = [(index * 37 + 5) % 64 for index in range(8)]
GROUP = 32
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def words(codes, bits, order=None):
    """Packs codes [..., n] into int32 [..., n * bits / 32], lowest bits first; `order` says which element comes when."""
    per_word = 32 // bits
    codes = codes.to(torch.int64).reshape(*codes.shape[:-1], -1, per_word)
    if order:
        codes = codes[..., order]
    word = (codes << (torch.arange(per_word) * bits)).sum(-1)
    return torch.where(word >= 1 << 31, word - (1 << 32), word).to(torch.int32)


def rounded(weight, bits, symmetric, index):
    """Codes [rows, columns] and scales, zeros [rows, groups] of the groups that `index` gives the columns."""
    groups = int(index.max()) + 1
    codes, scales, zeros = torch.zeros_like(weight), [], []
    top = 2**bits - 1
    for group in range(groups):
        part = weight[:, index == group]
        if symmetric:
            scale = part.abs().amax(1) / (2 ** (bits - 1) - 1)
            zero = torch.full_like(scale, 2 ** (bits - 1))
        else:
            low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
            scale = (high - low) / top
            zero = (-low / scale).round().clamp(1, top)
        scale = scale.half().float()
        codes[:, index == group] = (part / scale[:, None] + zero[:, None]).round().clamp(0, top)
        scales.append(scale)
        zeros.append(zero)
    return codes, torch.stack(scales, 1), torch.stack(zeros, 1)


def awq(name, weight):
    codes, scales, zeros = rounded(weight, 4, False, torch.arange(weight.shape[1]) // GROUP)
    parts = {f"{name}.qweight": words(codes.T.contiguous(), 4, AWQ_ORDER),
             f"{name}.qzeros": words(zeros.T.contiguous(), 4, AWQ_ORDER), f"{name}.scales": scales.T.contiguous().half()}
    converted = AutoAWQConverter(group_size=GROUP, ignore=()).process(dict(parts))
    converted = {key.removeprefix(f"{name}."): value for key, value in converted.items()}
    converted["weight_scale"] = converted["weight_scale"].float()
    args = QuantizationArgs(num_bits=4, type="int", symmetric=False, strategy="group", group_size=GROUP)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    return parts, PackedQuantizationCompressor.decompress(converted, scheme)["weight"]


def gptq(bits, symmetric, shuffled, taken_off):
    def pack(name, weight):
        columns = weight.shape[1]
        order = torch.randperm(columns) if shuffled else torch.arange(columns)
        index = torch.empty(columns, dtype=torch.int64)
        index[order] = torch.arange(columns) // GROUP
        codes, scales, zeros = rounded(weight, bits, symmetric, index)
        dense = (codes - zeros[:, index]) * scales[:, index]
        parts = {f"{name}.qweight": words(codes, bits).T.contiguous(),
                 f"{name}.qzeros": words(zeros.T.contiguous() - taken_off, bits),
                 f"{name}.scales": scales.T.contiguous().half(), f"{name}.g_idx": index.to(torch.int32)}
        return parts, dense

    return pack


def fp8(dtype, per_row, static):
    def pack(name, weight):
        top = torch.finfo(dtype).max
        scale = weight.abs().amax(1, keepdim=True) / top if per_row else weight.abs().max() / top
        codes = (weight / scale).to(dtype)
        parts = {f"{name}.weight": codes, f"{name}.weight_scale": scale}
        if static:
            parts[f"{name}.input_scale"] = torch.tensor(0.01)
        return parts, codes.float() * scale

    return pack


def fp8_blocks(name, weight):
    size = 40  # divides neither 64 nor 96: the last blocks are cut off
    rows, columns = (-(-length // size) for length in weight.shape)
    scales = torch.zeros(rows, columns)
    codes = torch.zeros_like(weight).to(torch.float8_e4m3fn)
    for row in range(rows):
        for column in range(columns):
            at = (slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size))
            scales[row, column] = weight[at].abs().max() / 448
            codes[at] = (weight[at] / scales[row, column]).to(torch.float8_e4m3fn)
    parts = {f"{name}.weight": codes, f"{name}.weight_scale_inv": scales}
    converter = FP8BlockDequantizer(targets=["Linear"], weight_block_size=(size, size), dtype=torch.float32)
    return parts, converter.process(dict(parts))[f"{name}.weight"]


def compressed(compressor, shuffled=False, **settings):
    """A format of compressed-tensors, written and read back by that package."""

    def pack(name, weight):
        args = QuantizationArgs(**settings)
        columns = weight.shape[1]
        group = args.group_size if args.strategy == "group" else columns
        index = torch.arange(columns) // group
        if shuffled:
            index = index[torch.randperm(columns)]
        if args.type == "float":
            state = {"weight": weight, "weight_scale": weight.abs().amax(1, keepdim=True) / 448}
        else:
            _, scale, zero = rounded(weight, args.num_bits, args.symmetric, index)
            zero = (zero - 2 ** (args.num_bits - 1)).to(torch.int8)
            state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
        # The package sorts columns by group before it rounds and puts them back after it has widened; files keep their order.
        order = torch.argsort(index, stable=True)
        state["weight"] = state["weight"][:, order] if shuffled else state["weight"]
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        state = compressor.compress(state, scheme)
        dense = compressor.decompress(dict(state), scheme)["weight"]
        if shuffled:
            # Written again in the order of the columns, as its files have them, with the group of each beside.
            back = torch.argsort(order)
            dense = dense[:, back]
            codes = unpack_from_int32(state["weight_packed"], args.num_bits, weight.shape)[:, back]
            state["weight_packed"] = pack_to_int32(codes.contiguous(), args.num_bits)
            state["weight_g_idx"] = index.to(torch.int32)
        return {f"{name}.{part}": value.contiguous() for part, value in state.items()}, dense

    return pack


def groups(**weights):
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"]}


def settings_of(format, **weights):
    return {"quant_method": "compressed-tensors", "format": format, **groups(**weights)}


INT4 = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": GROUP}
INT8 = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
INT8_ZERO = {**INT8, "symmetric": False}
FLOAT8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}

FORMATS = {
    "fp8": ({"quant_method": "fp8", "activation_scheme": "static"}, fp8(torch.float8_e4m3fn, False, True)),
    "fp8-e5m2": ({"quant_method": "fp8", "activation_scheme": "dynamic"}, fp8(torch.float8_e5m2, True, False)),
    "fp8-blocks": ({"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [40, 40]}, fp8_blocks),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}, awq),
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True, "desc_act": True},
             gptq(4, True, True, 1)),
    "gptq-v2": ({"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": False, "desc_act": False,
                 "checkpoint_format": "gptq_v2"}, gptq(4, False, False, 0)),
    "gptq-8": ({"quant_method": "gptq", "bits": 8, "group_size": GROUP, "sym": False, "checkpoint_format": "gptq"},
               gptq(8, False, False, 1)),
    "pack-int4": (settings_of("pack-quantized", **INT4), compressed(PackedQuantizationCompressor, **INT4)),
    "pack-int4-order": (settings_of("pack-quantized", **INT4, actorder="group"),
                        compressed(PackedQuantizationCompressor, shuffled=True, **INT4)),
    "pack-int8": (settings_of("pack-quantized", **INT8), compressed(PackedQuantizationCompressor, **INT8)),
    "int8": (settings_of("int-quantized", **INT8_ZERO), compressed(NaiveQuantizationCompressor, **INT8_ZERO)),
    "float8": (settings_of("float-quantized", **FLOAT8), compressed(NaiveQuantizationCompressor, **FLOAT8)),
}


def write(folder, config, tensors, model):
    """One fixture; `model` has the dequantised weights. Returns its size in bytes."""
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0]
    out = OUT / folder
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(tensors, out / "model.safetensors")
    rows = [[float(f"{value:.6g}") for value in row] for row in logits.tolist()]
    (out / "logits.json").write_text(json.dumps({"ids": IDS, "logits": rows}, separators=(",", ":")) + "\n")
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{folder}: {size} bytes")
    return size


def mxfp4():
    """A tiny gpt_oss with random MXFP4 experts, which Transformers dequantises."""
    config = GptOssConfig(vocab_size=64, hidden_size=64, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
                          num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2,
                          max_position_embeddings=128, sliding_window=16, tie_word_embeddings=False)
    model = GptOssForCausalLM(config).eval().float()
    state = {name: (torch.randn_like(weight) * 0.3 + ("norm" in name)).half() for name, weight in model.named_parameters()}
    tensors = {}
    for name, weight in state.items():
        if weight.dim() < 3:
            tensors[name] = weight
            continue
        experts, columns, rows = weight.shape
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), dtype=torch.uint8)
        scales = torch.randint(120, 126, (experts, rows, columns // 32), dtype=torch.uint8)
        tensors.update({f"{name}_blocks": blocks, f"{name}_scales": scales})
        state[name] = convert_moe_packed_tensors(blocks, scales)
    model.load_state_dict({name: weight.float() for name, weight in state.items()})
    settings = {**json.loads(config.to_json_string(use_diff=False)), "quantization_config": {"quant_method": "mxfp4"}}
    return write("mxfp4", settings, tensors, model)


def main():
    torch.manual_seed(7)
    config = LlamaConfig(**CONFIG)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            spread = 0.3 if "norm" in name else (1.0 if "embed" in name else 1.5 / weight.shape[-1] ** 0.5)
            weight.copy_((torch.randn_like(weight) * spread + ("norm" in name)).half().float())
    original = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    matrices = [name for name, weight in original.items() if weight.dim() == 2 and "embed" not in name]
    total = 0
    for folder, (settings, pack) in FORMATS.items():
        tensors = {name: weight.half() for name, weight in original.items() if name not in matrices}
        dense = dict(original)
        for name in matrices:
            parts, wide = pack(name.removesuffix(".weight"), original[name])
            tensors.update(parts)
            dense[name] = wide.float()
            error = (dense[name] - original[name]).norm() / original[name].norm()
            assert 0 < error < 0.2, (folder, name, error)
        model.load_state_dict(dense, strict=False)
        total += write(folder, {"model_type": "llama", **CONFIG, "quantization_config": settings}, tensors, model)
    total += mxfp4()
    print(f"{total} bytes in all")


if __name__ == "__main__":
    main()
