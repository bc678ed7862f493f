//! The list of a model's tensors: Hugging Face's names and shapes, as a spec implies them.
//! Knows names only; where the numbers come from and what is built of them is decided elsewhere.

use super::spec::DecoderSpec;

/// Every tensor that a model of this spec has, with its shape. A tied head has none of its own.
pub fn tensors(spec: &DecoderSpec) -> Vec<(String, Vec<usize>)> {
    let (hidden, inner, geometry) = (spec.hidden_size, spec.intermediate_size, spec.geometry);
    let mut list = vec![("model.embed_tokens.weight".to_owned(), vec![spec.vocab_size, hidden])];
    if !spec.tied_head {
        list.push(("lm_head.weight".to_owned(), vec![spec.vocab_size, hidden]));
    }
    let products = [
        ("self_attn.q_proj", geometry.q_width(), hidden, spec.qkv_bias),
        ("self_attn.k_proj", geometry.kv_width(), hidden, spec.qkv_bias),
        ("self_attn.v_proj", geometry.kv_width(), hidden, spec.qkv_bias),
        ("self_attn.o_proj", hidden, geometry.q_width(), spec.output_bias),
        ("mlp.gate_proj", inner, hidden, spec.mlp_bias),
        ("mlp.up_proj", inner, hidden, spec.mlp_bias),
        ("mlp.down_proj", hidden, inner, spec.mlp_bias),
    ];
    let mut norms = vec![("input_layernorm", hidden), ("post_attention_layernorm", hidden)];
    if spec.qk_norm {
        norms.extend([("self_attn.q_norm", geometry.head_dim), ("self_attn.k_norm", geometry.head_dim)]);
    }
    for layer in 0..spec.num_layers() {
        for (name, rows, columns, bias) in products {
            list.push((format!("model.layers.{layer}.{name}.weight"), vec![rows, columns]));
            if bias {
                list.push((format!("model.layers.{layer}.{name}.bias"), vec![rows]));
            }
        }
        for (name, width) in &norms {
            list.push((format!("model.layers.{layer}.{name}.weight"), vec![*width]));
        }
    }
    list.push(("model.norm.weight".to_owned(), vec![hidden]));
    list
}
