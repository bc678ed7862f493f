//! The preference dataset: pairs from verdicts, Parquet files, card. The last stage of a run.
//! Knows records, candidates and verdicts; knows nothing of engines or of the command line.
