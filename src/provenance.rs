//! Provenance of a run: hashes, versions, parameters in one lock file. Knows no stage.
