//! The embedded demonstration: prompts and a tiny model, labelled as such. Knows no engine.
