//! What is special about each architecture that GGUF files name: its Hugging Face family, its tensor names, its changed layouts.
//! Data only.

/// One `general.architecture`.
pub(super) struct Family {
    /// The value in the file.
    pub(super) arch: &'static str,
    /// Which of the architecture's models these are.
    pub(super) only: Only,
    /// Transformers' `model_type`.
    pub(super) model_type: &'static str,
    /// Names within a layer that differ from [`LAYER`]: ggml's and Hugging Face's.
    pub(super) layer: &'static [(&'static str, &'static str)],
    /// Rows of the query and key matrices are stored for the rotation of neighbouring elements, not of halves.
    pub(super) interleaved: bool,
    /// Norm weights are stored with the 1 added that the family adds when it computes.
    pub(super) norm_plus_one: bool,
    /// Names of an expert's gate, up and down products.
    pub(super) experts: [&'static str; 3],
}

/// One architecture's name may stand for two families.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Only {
    /// It does not.
    All,
    /// With experts, or without.
    Experts(bool),
    /// With layers that see a window only, or without.
    Windows(bool),
}

/// Names within a layer, without `.weight` or `.bias`.
pub(super) const LAYER: [(&str, &str); 13] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_gate_inp", "mlp.gate"),
    ("post_attention_norm", "post_attention_layernorm"),
];

/// Norms before and after both blocks.
const SANDWICH: &[(&str, &str)] =
    &[("ffn_norm", "pre_feedforward_layernorm"), ("post_ffw_norm", "post_feedforward_layernorm")];
/// Norms after both blocks.
const AFTER: &[(&str, &str)] = &[("post_ffw_norm", "post_feedforward_layernorm")];

/// What most architectures have: nothing of their own.
const PLAIN: Family = Family {
    arch: "",
    only: Only::All,
    model_type: "",
    layer: &[],
    interleaved: false,
    norm_plus_one: false,
    experts: ["gate_proj", "up_proj", "down_proj"],
};

const fn plain(arch: &'static str, model_type: &'static str) -> Family {
    Family { arch, model_type, ..PLAIN }
}

/// Every architecture we know. Mistral's models are published as `llama`; their window is not in the file and is not applied.
pub(super) const FAMILIES: [Family; 23] = [
    Family { interleaved: true, only: Only::Experts(false), ..plain("llama", "llama") },
    Family {
        interleaved: true,
        only: Only::Experts(true),
        layer: &[("ffn_gate_inp", "block_sparse_moe.gate")],
        experts: ["w1", "w3", "w2"],
        ..plain("llama", "mixtral")
    },
    plain("qwen2", "qwen2"),
    plain("qwen3", "qwen3"),
    plain("qwen3moe", "qwen3_moe"),
    Family { norm_plus_one: true, ..plain("gemma", "gemma") },
    Family { norm_plus_one: true, layer: SANDWICH, ..plain("gemma2", "gemma2") },
    Family { norm_plus_one: true, layer: SANDWICH, ..plain("gemma3", "gemma3_text") },
    Family { layer: &[("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")], ..plain("phi3", "phi3") },
    plain("command-r", "cohere"),
    plain("cohere2", "cohere2"),
    Family { interleaved: true, only: Only::Experts(false), ..plain("granite", "granite") },
    Family { layer: AFTER, only: Only::Windows(false), ..plain("olmo2", "olmo2") },
    Family { layer: AFTER, only: Only::Windows(true), ..plain("olmo2", "olmo3") },
    Family { interleaved: true, ..plain("smollm3", "smollm3") },
    Family {
        layer: &[
            ("post_attention_norm", "post_self_attn_layernorm"),
            ("post_ffw_norm", "post_mlp_layernorm"),
            ("ffn_up", "mlp.gate_up_proj"),
        ],
        ..plain("glm4", "glm4")
    },
    Family {
        layer: &[("attn_q_norm", "self_attn.q_layernorm"), ("attn_k_norm", "self_attn.k_layernorm")],
        ..plain("stablelm", "stablelm")
    },
    Family { layer: &[("ffn_up", "mlp.c_fc"), ("ffn_down", "mlp.c_proj")], ..plain("starcoder2", "starcoder2") },
    Family { layer: AFTER, ..plain("exaone4", "exaone4") },
    Family {
        layer: &[("attn_norm", "attention_layernorm"), ("ffn_norm", "feedforward_layernorm")],
        ..plain("apertus", "apertus")
    },
    Family { interleaved: true, ..plain("arcee", "arcee") },
    plain("seed_oss", "seed_oss"),
    Family {
        layer: &[("attn_q_norm", "self_attn.query_layernorm"), ("attn_k_norm", "self_attn.key_layernorm")],
        ..plain("hunyuan-dense", "hunyuan_v1_dense")
    },
];
