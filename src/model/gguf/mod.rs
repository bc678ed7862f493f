//! A GGUF file as its model was published: Transformers' configuration fields, Hugging Face's tensor names, and the layouts
//! that llama.cpp's converter changed put back. Knows what converters do (llama.cpp's `convert_hf_to_gguf.py` and the loaders
//! in its `src/models`); what a family makes of the fields is decided in `arch`, as for any other model.

mod config;
mod family;
mod names;
mod rope;

use crate::gguf::{Gguf, GgufError};
pub(super) use config::{Fields, fields};
use family::Only;
pub(super) use names::{Piece, Source, pieces};

/// The architectures whose families `families` has, for messages.
fn supported() -> String {
    let known = family::FAMILIES.iter().filter(|family| super::arch::families().any(|name| name == family.model_type));
    let mut names: Vec<&str> = known.map(|family| family.arch).collect();
    names.dedup();
    names.join(", ")
}

/// The family of a file.
///
/// # Errors
/// `general.architecture` is missing or none that we run.
fn family_of(gguf: &Gguf) -> Result<&'static family::Family, GgufError> {
    const KEY: &str = "general.architecture";
    let arch = gguf.text(KEY)?.ok_or_else(|| gguf.damaged(format!("metadata `{KEY}` is missing")))?;
    let some = |name: &str| gguf.count(&format!("{arch}.{name}")).is_ok_and(|count| count.unwrap_or(0) > 0);
    let family = family::FAMILIES.iter().filter(|family| family.arch == arch).find(|family| match family.only {
        Only::All => true,
        Only::Experts(wanted) => wanted == some("expert_count"),
        Only::Windows(wanted) => wanted == some("attention.sliding_window"),
    });
    family.filter(|family| super::arch::families().any(|name| name == family.model_type)).ok_or_else(|| {
        let hint = match arch {
            "clip" | "mmproj" => "this is the vision part of a model; give the file with its text part",
            _ => "use a model of one of these architectures, or its safetensors if that family is supported",
        };
        gguf.unsupported(format!("metadata `{KEY}` is `{arch}`, want one of {}", supported()), hint)
    })
}
