//! Annotating: votes and their store, items, the queue, the server with all that people and attackers send it, packs.
//! Knows what people may rely on; makes no claim about how a page looks, which `scripts/check_annotate.sh` does in a browser.

#[path = "annotate/apart.rs"]
mod apart;
#[path = "annotate/calibrating.rs"]
mod calibrating;
#[path = "annotate/client.rs"]
mod client;
#[path = "annotate/connections.rs"]
mod connections;
#[path = "annotate/contract.rs"]
mod contract;
#[path = "annotate/exchanging.rs"]
mod exchanging;
#[path = "annotate/growing.rs"]
mod growing;
#[path = "annotate/hostile.rs"]
mod hostile;
#[path = "support/judged.rs"]
mod judged;
#[path = "annotate/load.rs"]
mod load;
#[expect(dead_code, reason = "the report's tests use the rest of it")]
#[path = "report/made.rs"]
mod made;
#[path = "annotate/numbers.rs"]
mod numbers;
#[path = "annotate/packs.rs"]
mod packs;
#[expect(dead_code, reason = "tests of commands use the rest of it")]
#[path = "support/program.rs"]
mod program;
#[path = "annotate/queue.rs"]
mod queue;
#[path = "annotate/server.rs"]
mod server;
#[path = "annotate/serving.rs"]
mod serving;
