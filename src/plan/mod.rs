//! What a run will take, before it is made: rows and tokens, memory, hours, disk, energy and price, people's time, what it can show, what licences
//! allow, and what may go wrong. Computes and prints nothing; opens no device, reads no weight, and does not know flags.

mod assemble;
mod cards;
mod cost;
mod figures;
mod fit;
mod measure;
mod model;
mod people;
mod simulate;
mod terms;
mod workload;

pub use assemble::{Asked, Measurement, PlannedGenerator, assemble};
pub use cost::{Efficiency, Fitted, GOOD, POOR, Work, roofline_s};
pub use figures::{
    CardModel, CardPlan, CardStage, Disk, GpuPlan, MeasuredStage, ModelMemory, Plan, Rates, Rows, StageTokens, Tokens,
};
pub use fit::{CLASSES_GB, Fit, fit, num_blocks, room, what_would};
pub use measure::{Measured, measure};
pub use model::{BYTES_PER_TOKEN, Encoder, Formats, ModelFacts, PlannedModel};
pub use people::{Effort, Power, SOURCE};
pub use simulate::{Job, Room, Simulator, StepShape, Steps, simulate};
pub use terms::{Counted, Licence, Licences, Risk, kind_of, risks};
pub use workload::{
    Expected, Judging, MAX_GENERATED_ROWS, MAX_JUDGED_ROWS, StageWork, TokenQuantiles, answers, generation, judging,
    prompts, sample,
};
