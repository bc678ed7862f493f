//! Annotating: votes and their store, items, the queue, the server with all that people and attackers send it, packs.
//! Knows what people may rely on; makes no claim about how a page looks, which `scripts/check_annotate.sh` does in a browser.

#[path = "annotate/calibrating.rs"]
mod calibrating;
#[path = "annotate/contract.rs"]
mod contract;
#[path = "annotate/exchanging.rs"]
mod exchanging;
#[path = "annotate/growing.rs"]
mod growing;
#[expect(dead_code, reason = "the report's tests use the rest of it")]
#[path = "report/made.rs"]
mod made;
#[path = "annotate/numbers.rs"]
mod numbers;
