//! The only place that spells the columns of what is written: the Arrow schemas, their description for the card, and the
//! same features as the `datasets` library notes them. Knows no rows.
//!
//! TRL gives a meaning to extra columns called `tools`, `chat_template_kwargs`, `image` and `images`: none is used here.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema};
use serde_json::{Map, Value, json};

/// Column and struct field names.
pub(crate) mod name {
    pub const ID: &str = "id";
    pub const PROMPT: &str = "prompt";
    pub const CHOSEN: &str = "chosen";
    pub const REJECTED: &str = "rejected";
    pub const CHOSEN_RATING: &str = "chosen_rating";
    pub const REJECTED_RATING: &str = "rejected_rating";
    pub const MARGIN: &str = "margin";
    pub const CHOSEN_SOURCE: &str = "chosen_source";
    pub const REJECTED_SOURCE: &str = "rejected_source";
    pub const CHOSEN_MODEL: &str = "chosen_model";
    pub const REJECTED_MODEL: &str = "rejected_model";
    pub const JUDGE_MODEL: &str = "judge_model";
    pub const LANGUAGE: &str = "language";
    pub const LANGUAGE_CODE: &str = "language_code";
    pub const ROW_INDEX: &str = "row_index";
    pub const INSTRUCTION: &str = "instruction";
    pub const TARGETS: &str = "targets";
    pub const ANNOTATION_TYPE: &str = "annotation_type";
    pub const GENERATION: &str = "generation";
    pub const GENERATION_MODEL: &str = "generation_model";
    pub const PREDICTED_LANGUAGE: &str = "predicted_generation_language";
    pub const PREDICTED_LANGUAGE_SCORE: &str = "predicted_generation_language_score";
    pub const ANSWER_LANGUAGES: &str = "generation_languages";
    pub const LANGUAGE_VERDICTS: &str = "generation_language_verdicts";
    pub const ANSWER_FLAGS: &str = "generation_flags";
    pub const ROW_FLAGS: &str = "row_flags";
    pub const NEAR_DUPLICATE_GROUP: &str = "near_duplicate_group";
    pub const GENERATIONS: &str = "generations";
    pub const GENERATION_MODELS: &str = "generation_models";
    pub const GENERATION_SOURCES: &str = "generation_sources";
    pub const FINISH_REASONS: &str = "finish_reasons";
    pub const TOKEN_COUNTS: &str = "generation_token_counts";
    pub const LOGPROBS: &str = "generation_logprobs";
    pub const THINKING: &str = "generation_thinking";
    pub const RATINGS: &str = "ratings";
    pub const RATIONALES: &str = "rationales";
    pub const MODEL_NAME: &str = "model_name";
    pub const OUTCOME: &str = "outcome";
    pub const CHOSEN_INDEX: &str = "chosen_index";
    pub const REJECTED_INDEX: &str = "rejected_index";
    pub const VERDICTS: &str = "verdicts";
    pub const COMPARISONS: &str = "comparisons";
    pub const PAIRS: &str = "pairs";
    pub const SAME_MODEL_JUDGE: &str = "same_model_judge";
    pub const USER_ID: &str = "user_id";
    /// Of pairs that people may have decided.
    pub const LABEL_SOURCE: &str = "label_source";
    pub const NUM_VOTES: &str = "num_votes";
    pub const CHOSEN_VOTE_SHARE: &str = "chosen_vote_share";
    pub const REJECTED_VOTE_SHARE: &str = "rejected_vote_share";
    /// Of a vote.
    pub const ITEM: &str = "item";
    pub const ANNOTATOR: &str = "annotator";
    pub const KIND: &str = "kind";
    pub const DAY: &str = "day";
    pub const VIA: &str = "via";
    pub const SHOWN: &str = "shown";
    pub const CHOICE: &str = "choice";
    pub const SIDE: &str = "side";
    pub const FLAG: &str = "flag";
    pub const FLAG_SIDE: &str = "flag_side";
    pub const EDIT: &str = "edit";
    pub const RANKS: &str = "ranks";
    pub const SCORES: &str = "scores";
    /// Fields of a message.
    pub const ROLE: &str = "role";
    pub const CONTENT: &str = "content";
    /// Fields of a verdict.
    pub const JUDGE: &str = "judge";
    pub const GENERATION_INDEX: &str = "generation_index";
    pub const ASPECT: &str = "aspect";
    pub const DISTRIBUTION: &str = "distribution";
    pub const MEAN: &str = "mean";
    pub const ENTROPY: &str = "entropy";
    pub const LABEL_MASS: &str = "label_mass";
    pub const RELIABLE: &str = "reliable";
    pub const SCORE: &str = "score";
    pub const RATIONALE: &str = "rationale";
    pub const WRITTEN_RATING: &str = "written_rating";
    /// Fields of a comparison.
    pub const FIRST_INDEX: &str = "first_index";
    pub const SECOND_INDEX: &str = "second_index";
    pub const LOG_ODDS: &str = "log_odds";
    pub const PREFERENCE: &str = "preference";
    pub const CONSISTENT: &str = "consistent";
    /// Of a pair.
    pub const JUDGES_AGREE: &str = "judges_agree";
    /// Of a bench's figure.
    pub const BENCH_ID: &str = "bench_id";
    pub const DATE: &str = "date";
    pub const PAIRWRIGHT_VERSION: &str = "pairwright_version";
    pub const MACHINE: &str = "machine";
    pub const DEVICE: &str = "device";
    pub const MODEL: &str = "model";
    pub const MODEL_SHA256: &str = "model_sha256";
    pub const METRIC: &str = "metric";
    pub const UNIT: &str = "unit";
    pub const VALUE: &str = "value";
    pub const LOW: &str = "low";
    pub const HIGH: &str = "high";
    pub const NUM_ROWS: &str = "num_rows";
    pub const PROMPTS_SHA256: &str = "prompts_sha256";
}

/// What a reward model's verdict is called where others name an aspect.
pub const REWARD: &str = "reward";

/// Key of the footer entry, and of the schema metadata, that the `datasets` library reads its features from.
pub const HUGGINGFACE_KEY: &str = "huggingface";

/// A column with the sentence that the card says of it.
pub type Column = (&'static str, DataType, &'static str);

/// The list type with the item name that the Parquet format prescribes.
pub fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", item, true)))
}

/// Fields of one chat message.
pub fn message_fields() -> Fields {
    Fields::from(vec![string_field(name::ROLE), string_field(name::CONTENT)])
}

/// Fields of one aspect of one verdict.
pub fn verdict_fields() -> Fields {
    Fields::from(vec![
        string_field(name::JUDGE),
        Field::new(name::GENERATION_INDEX, DataType::Int64, true),
        string_field(name::ASPECT),
        Field::new(name::DISTRIBUTION, list_of(DataType::Float64), true),
        Field::new(name::MEAN, DataType::Float64, true),
        Field::new(name::ENTROPY, DataType::Float64, true),
        Field::new(name::LABEL_MASS, DataType::Float64, true),
        Field::new(name::RELIABLE, DataType::Boolean, true),
        Field::new(name::SCORE, DataType::Float64, true),
        string_field(name::RATIONALE),
        Field::new(name::WRITTEN_RATING, DataType::Int64, true),
    ])
}

/// Fields of one comparison of two answers by one judge.
pub fn comparison_fields() -> Fields {
    Fields::from(vec![
        string_field(name::JUDGE),
        Field::new(name::FIRST_INDEX, DataType::Int64, true),
        Field::new(name::SECOND_INDEX, DataType::Int64, true),
        Field::new(name::LOG_ODDS, list_of(DataType::Float64), true),
        Field::new(name::PREFERENCE, DataType::Float64, true),
        Field::new(name::CONSISTENT, DataType::Boolean, true),
        Field::new(name::LABEL_MASS, list_of(DataType::Float64), true),
        Field::new(name::RELIABLE, DataType::Boolean, true),
    ])
}

/// Fields of one pair of a prompt.
pub fn pair_fields() -> Fields {
    Fields::from(vec![
        Field::new(name::CHOSEN_INDEX, DataType::Int64, true),
        Field::new(name::REJECTED_INDEX, DataType::Int64, true),
        Field::new(name::MARGIN, DataType::Float64, true),
        Field::new(name::PREFERENCE, DataType::Float64, true),
        Field::new(name::JUDGES_AGREE, DataType::Boolean, true),
    ])
}

fn string_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

/// Columns of the `default` configuration: TRL's explicit conversational form, then where each side comes from, and in an export with
/// people's votes who decided.
pub fn default_columns(with_votes: bool) -> Vec<Column> {
    let messages = || list_of(DataType::Struct(message_fields()));
    let mut columns = vec![
        (name::ID, DataType::Utf8, "SHA-256 of the prompt's UTF-8 bytes"),
        (name::PROMPT, messages(), "one user message"),
        (name::CHOSEN, messages(), "one assistant message: the answer with the higher rating"),
        (name::REJECTED, messages(), "one assistant message: the answer with the lower rating"),
        (
            name::CHOSEN_RATING,
            DataType::Float64,
            "judge's expected label, 1 to 5, continuous; of several judges the weighted mean",
        ),
        (name::REJECTED_RATING, DataType::Float64, "the same for the rejected answer"),
        (name::MARGIN, DataType::Float64, "chosen minus rejected rating"),
        (
            name::PREFERENCE,
            DataType::Float64,
            "log-odds (nats) of the chosen answer in comparisons, both orders; null without",
        ),
        (
            name::JUDGES_AGREE,
            DataType::Boolean,
            "whether all judges rate the chosen answer higher; null with one judge",
        ),
        (name::CHOSEN_SOURCE, DataType::Utf8, "`human` or `model`"),
        (name::REJECTED_SOURCE, DataType::Utf8, "`human` or `model`"),
        (name::CHOSEN_MODEL, DataType::Utf8, "model that wrote the chosen answer, or `human`"),
        (name::REJECTED_MODEL, DataType::Utf8, "model that wrote the rejected answer, or `human`"),
        (name::JUDGE_MODEL, DataType::Utf8, "model that rated both answers, or several, apart by commas"),
        (name::LANGUAGE, DataType::Utf8, "language name as the source spells it"),
        (name::LANGUAGE_CODE, DataType::Utf8, "language code as the source spells it"),
    ];
    if with_votes {
        columns.extend([
            (name::LABEL_SOURCE, DataType::Utf8, "who prefers the chosen answer: `human` (people's votes) or `judge`"),
            (name::NUM_VOTES, DataType::Int64, "people with an opinion on these two answers; 0 if the judge decided"),
            (name::CHOSEN_VOTE_SHARE, DataType::Float64, "share of them who prefer the chosen answer; null without"),
            (
                name::REJECTED_VOTE_SHARE,
                DataType::Float64,
                "share of them who prefer the rejected answer; the rest see no difference, find both bad or flagged",
            ),
        ]);
    }
    columns
}

/// Columns of the `votes` configuration: one row per person, item and round.
pub fn vote_columns() -> Vec<Column> {
    vec![
        (name::ID, DataType::Utf8, "SHA-256 of the prompt's UTF-8 bytes, as in the other configurations"),
        (name::ITEM, DataType::Utf8, "SHA-256 over the prompt and the answers that were shown, in any order"),
        (name::ANNOTATOR, DataType::Utf8, "a pseudonym"),
        (
            name::KIND,
            DataType::Utf8,
            "why it was shown: `ordinary`, `audit` (drawn at random), `repeat` (a second time), `gold` (planted, with an answer of another \
             prompt); only the first two decide pairs",
        ),
        (name::DAY, DataType::Utf8, "the day of the vote, UTC"),
        (name::VIA, DataType::Utf8, "where it was given: `page`, `pack` (a file) or `import` (another tool)"),
        (
            name::SHOWN,
            list_of(DataType::Utf8),
            "SHA-256 of each answer's UTF-8 bytes in the order in which this person saw them",
        ),
        (name::CHOICE, DataType::Utf8, "`better`, `same`, `both_bad`, `skip`, `flag`, `edit` or `ranking`"),
        (
            name::SIDE,
            DataType::Utf8,
            "the preferred answer: A is the first of `shown`, B the second; null if there is none",
        ),
        (name::FLAG, DataType::Utf8, "`wrong_language`, `offensive`, `broken` or `other`; null without"),
        (name::FLAG_SIDE, DataType::Utf8, "the answer that is meant; null: all of the item"),
        (name::EDIT, DataType::Utf8, "the answer that this person made of the preferred one; null without"),
        (
            name::RANKS,
            list_of(DataType::Int64),
            "of a ranking: the rank of each answer shown, 1 the best, equal ones the same",
        ),
        (name::SCORES, list_of(DataType::Int64), "1 to 5 for each answer shown, where this person gave them"),
    ]
}

/// Columns of the `raw` configuration: every prompt that entered, pair or not, with everything that was said of it.
/// `user_id`, a person's pseudonym, is there only if asked for.
pub fn raw_columns(include_user_id: bool) -> Vec<Column> {
    let strings = || list_of(DataType::Utf8);
    let mut columns = vec![
        (name::ID, DataType::Utf8, "SHA-256 of the prompt's UTF-8 bytes"),
        (name::ROW_INDEX, DataType::Int64, "zero-based row in the source file"),
        (name::INSTRUCTION, DataType::Utf8, "the prompt"),
        (name::TARGETS, DataType::Utf8, "the source's human answer; null if it has none"),
        (name::LANGUAGE, DataType::Utf8, "language name as the source spells it"),
        (name::LANGUAGE_CODE, DataType::Utf8, "language code as the source spells it"),
        (name::ANNOTATION_TYPE, DataType::Utf8, "as in the source"),
        (name::GENERATION, DataType::Utf8, "the first answer that a model wrote"),
        (name::GENERATION_MODEL, DataType::Utf8, "the model that wrote it"),
        (
            name::PREDICTED_LANGUAGE,
            DataType::Utf8,
            "ISO 639-3, macro-languages under their common code; null if not to be told",
        ),
        (name::PREDICTED_LANGUAGE_SCORE, DataType::Float64, "its posterior, 0 to 1, among the languages of the script"),
        (name::GENERATIONS, strings(), "all answers: human first, then by model and index"),
        (name::GENERATION_MODELS, strings(), "who wrote each answer: a model, or `human`"),
        (name::GENERATION_SOURCES, strings(), "`human` or `model`, for each answer"),
        (name::FINISH_REASONS, strings(), "`stop` or `length` (cut at the token limit); null for human answers"),
        (name::TOKEN_COUNTS, list_of(DataType::Int64), "generated tokens; null for human answers"),
        (name::LOGPROBS, list_of(DataType::Float64), "sum of natural-log probabilities of the tokens; may be null"),
        (name::THINKING, strings(), "what the model thought before the answer, which was not rated; null if nothing"),
        (name::RATINGS, list_of(DataType::Float64), "judge's expected label for each answer, 1 to 5; may be null"),
        (
            name::RATIONALES,
            strings(),
            "why, as judges wrote it, for each answer, a paragraph per aspect; null: ratings are read from label probabilities, and no text \
             was asked for",
        ),
        (name::ANSWER_LANGUAGES, strings(), "what each answer's prose looks like, ISO 639-3; null if not to be told"),
        (
            name::LANGUAGE_VERDICTS,
            strings(),
            "`ok`, `mixed`, `wrong` or `unsure`, for each answer, against the row's language",
        ),
        (name::ANSWER_FLAGS, strings(), "what checks found in each answer, joined by commas; empty if nothing"),
        (name::ROW_FLAGS, strings(), "what checks found in the row: `near_duplicate`, `contaminated`"),
        (
            name::NEAR_DUPLICATE_GROUP,
            DataType::Utf8,
            "id of the first row with nearly this prompt; null if there is no other",
        ),
        (name::MODEL_NAME, DataType::Utf8, "the judge"),
        (name::OUTCOME, DataType::Utf8, "`pair`, or the reason why the row is none"),
        (
            name::CHOSEN_INDEX,
            DataType::Int64,
            "position of the (first) chosen answer in `generations`; null without a pair",
        ),
        (name::REJECTED_INDEX, DataType::Int64, "position of the rejected answer; null without a pair"),
        (name::MARGIN, DataType::Float64, "best minus worst usable rating, also of ties; may be null"),
        (
            name::VERDICTS,
            list_of(DataType::Struct(verdict_fields())),
            "per judge, answer and aspect: probabilities of the labels 1 to 5, their mean, entropy (nats), label mass; of a reward \
             model its score and, as mean, that score's place in the run",
        ),
        (
            name::COMPARISONS,
            list_of(DataType::Struct(comparison_fields())),
            "per judge and two answers: log-odds (nats) of the first over the second, with the first and with the second shown first; \
             their mean; whether both orders agree",
        ),
        (name::PAIRS, list_of(DataType::Struct(pair_fields())), "all pairs of the prompt, the first one first"),
        (name::SAME_MODEL_JUDGE, DataType::Boolean, "true if the judge also wrote one of the answers"),
    ];
    if include_user_id {
        columns.push((name::USER_ID, DataType::Utf8, "the source's pseudonym of the human author"));
    }
    columns
}

/// Columns of a bench's table: a row per figure, so that tables of other months, machines and versions can be put under one another.
pub fn figure_columns() -> Vec<Column> {
    vec![
        (name::BENCH_ID, DataType::Utf8, "what the figure was measured in: a hash of all that its answers depend on"),
        (name::DATE, DataType::Utf8, "the day the bench began, UTC"),
        (name::PAIRWRIGHT_VERSION, DataType::Utf8, "the version that measured"),
        (name::MACHINE, DataType::Utf8, "the machine: host name and processor"),
        (name::DEVICE, DataType::Utf8, "the device, in words"),
        (name::MODEL, DataType::Utf8, "the model's name"),
        (name::MODEL_SHA256, DataType::Utf8, "a digest of the model's files"),
        (name::LANGUAGE, DataType::Utf8, "ISO 639-3, or what the source has"),
        (name::METRIC, DataType::Utf8, "what was measured"),
        (name::UNIT, DataType::Utf8, "its unit; `share` for 0 to 1"),
        (name::VALUE, DataType::Float64, "the figure"),
        (name::LOW, DataType::Float64, "lower end of its 95 % interval; null where there is none"),
        (name::HIGH, DataType::Float64, "upper end of its 95 % interval; null where there is none"),
        (name::NUM_ROWS, DataType::Int64, "rows that the figure is of"),
        (name::JUDGE, DataType::Utf8, "the judge it rests on; null where it rests on none"),
        (name::PROMPTS_SHA256, DataType::Utf8, "a digest of the rows that were asked"),
    ]
}

/// The Arrow schema of some columns, carrying the features for the `datasets` library.
pub fn schema_of(columns: &[Column]) -> Schema {
    let fields: Vec<Field> =
        columns.iter().map(|(name, data_type, _)| Field::new(*name, data_type.clone(), true)).collect();
    let schema = Schema::new(fields);
    let metadata = HashMap::from([(HUGGINGFACE_KEY.to_string(), huggingface_metadata(&schema))]);
    schema.with_metadata(metadata)
}

/// The value of [`HUGGINGFACE_KEY`], in the layout that `datasets` writes itself.
pub fn huggingface_metadata(schema: &Schema) -> String {
    json!({"info": {"features": feature_map(schema.fields())}}).to_string()
}

fn feature_map(fields: &Fields) -> Value {
    Value::Object(fields.iter().map(|field| (field.name().clone(), feature(field.data_type()))).collect::<Map<_, _>>())
}

fn feature(data_type: &DataType) -> Value {
    match data_type {
        DataType::List(item) => json!({"feature": feature(item.data_type()), "_type": "List"}),
        DataType::Struct(fields) => feature_map(fields),
        scalar => json!({"dtype": dtype_name(scalar), "_type": "Value"}),
    }
}

/// The `features` list of a card's `dataset_info`.
pub fn card_features(schema: &Schema) -> Value {
    card_fields(schema.fields())
}

fn card_fields(fields: &Fields) -> Value {
    let describe = |field: &Arc<Field>| {
        let (key, value) = card_type(field.data_type());
        Value::Object(Map::from_iter([("name".to_string(), json!(field.name())), (key.to_string(), value)]))
    };
    Value::Array(fields.iter().map(describe).collect())
}

fn card_type(data_type: &DataType) -> (&'static str, Value) {
    match data_type {
        DataType::List(item) => ("list", card_type(item.data_type()).1),
        DataType::Struct(fields) => ("struct", card_fields(fields)),
        scalar => ("dtype", json!(dtype_name(scalar))),
    }
}

/// The name that `datasets` gives a scalar type.
pub fn dtype_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Float64 => "float64",
        DataType::Int64 => "int64",
        DataType::Boolean => "bool",
        _ => "string",
    }
}

/// A type in the words of the card's column table: `list<struct<role, content>>`.
pub fn type_in_words(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item) => format!("list<{}>", type_in_words(item.data_type())),
        DataType::Struct(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            format!("struct<{}>", names.join(", "))
        }
        scalar => dtype_name(scalar).to_string(),
    }
}
