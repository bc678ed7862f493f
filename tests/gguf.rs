//! GGUF files: that they give the model, the tokenizer and the template they were made from, and that damaged ones give one
//! clear error. Most files are written here, by a writer of our own; real ones of the `gguf` package are in `tests/fixtures/gguf`.

#[path = "gguf/models.rs"]
mod models;
#[path = "support/gguf_writer.rs"]
mod writer;
