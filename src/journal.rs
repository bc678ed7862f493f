//! Append-only journal of a stage: what was done survives a kill. Knows JSON lines, not what they mean.
