//! A plan as text for a terminal. Knows layout; counts nothing.

use super::super::models::gigabytes;
use super::words::{
    drops, grouped, kind, languages, points, points_or_none, quantiles, range, room, short, shown_card, time,
};
use crate::plan::{CLASSES_GB, CardPlan, Plan, StageTokens};

/// The whole plan.
pub(super) fn text(plan: &Plan, currency: &str) -> String {
    let parts = [
        rows(plan),
        tokens(plan),
        stages(plan),
        memory(plan),
        measured(plan),
        cards(plan, currency),
        people(plan),
        terms(plan),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("\n")
}

/// Lines under a heading.
fn section(heading: &str, lines: impl IntoIterator<Item = String>) -> String {
    let lines: String = lines.into_iter().map(|line| format!("  {line}\n")).collect();
    if lines.is_empty() { lines } else { format!("{heading}\n{lines}") }
}

/// Columns of equal width; the first `num_words` to the left, the others, which are numbers, to the right.
fn table(rows: &[Vec<String>], num_words: usize) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let cell = |(at, cell): (usize, &String)| {
        let pad = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
        if at < num_words { format!("{cell}{pad}") } else { format!("{pad}{cell}") }
    };
    rows.iter()
        .map(|row| row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned())
        .collect()
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn rows(plan: &Plan) -> String {
    let rows = &plan.rows;
    section(
        "Rows",
        [
            format!("{} of {}; dropped: {}", grouped(rows.num_records), grouped(rows.num_rows_read), drops(plan)),
            format!("languages: {}", languages(plan, 6)),
            format!("at most {} pairs", grouped(rows.most_pairs)),
        ],
    )
}

fn tokens(plan: &Plan) -> String {
    let lines = plan.tokens.iter().flat_map(|tokens| {
        let by = if tokens.counted_by == "estimate" { " (estimated: no tokenizer here)" } else { "" };
        let from = match tokens.expected_from {
            "measured" => "measured",
            "both" => "as measured and as people's: few answers ended in that time",
            _ => "as long as people's",
        };
        [
            format!("{}{by}", tokens.model),
            format!("  prompts   {}", quantiles(&tokens.prompts)),
            format!(
                "  human     {}; {} above --max-tokens {}",
                quantiles(&tokens.answers),
                grouped(tokens.num_clipped as u64),
                tokens.max_tokens
            ),
            format!("  expected  {} ({from})", quantiles(&tokens.expected)),
            format!(
                "  1,000 characters take {} tokens, of English {}",
                short(tokens.per_1000_characters),
                short(tokens.english_per_1000_characters)
            ),
        ]
    });
    section("Tokens", lines)
}

/// What of a stage's prompt tokens is computed.
fn computed(stage: &StageTokens) -> u64 {
    stage.computed.values().sum()
}

fn stages(plan: &Plan) -> String {
    let mut rows =
        vec![row(["stage", "model", "rows", "requests", "prompt tokens", "each p50", "computed", "generated"])];
    for stage in &plan.stages {
        rows.push(vec![
            stage.stage.to_owned(),
            stage.model.clone(),
            grouped(stage.num_rows),
            grouped(stage.num_requests),
            grouped(stage.num_prompt_tokens),
            grouped(stage.prompt.p50 as u64),
            grouped(computed(stage)),
            grouped(stage.num_output_tokens),
        ]);
    }
    let mut lines = table(&rows, 2);
    for stage in plan.stages.iter().filter(|stage| stage.computed.len() > 1) {
        let parts = stage.computed.iter().map(|(part, tokens)| format!("{part} {}", grouped(*tokens)));
        lines.push(format!("{} by {}: {}", stage.stage, stage.model, parts.collect::<Vec<_>>().join(", ")));
    }
    section("Stages (the prefix cache saves what is not computed)", lines)
}

fn memory(plan: &Plan) -> String {
    let mut rows = vec![row(["sequences at once on", "weights", "KV/token"])];
    rows[0].extend(CLASSES_GB.iter().map(|gb| format!("{gb} GB")));
    for model in &plan.models {
        let facts = &model.facts;
        let kv = facts.kv_bytes_per_token.map_or_else(|| "not known".to_owned(), grouped);
        let mut cells =
            vec![format!("{} ({}, {})", facts.name, model.role, facts.format), gigabytes(facts.weight_bytes), kv];
        cells.extend(
            model
                .fits
                .iter()
                .map(|fit| if fit.fits() { format!("{}/{}", fit.num_usual, fit.num_longest) } else { "-".to_owned() }),
        );
        rows.push(cells);
    }
    let mut lines = table(&rows, 1);
    lines.push("usual length / longest; -: does not fit".to_owned());
    section("Memory", lines)
}

fn measured(plan: &Plan) -> String {
    let one = |stage: &crate::plan::MeasuredStage| {
        // Ratings decode nothing.
        let answers = match stage.output_tokens_per_s > 0.0 {
            true => format!(", answers {} tok/s", short(stage.output_tokens_per_s)),
            false => String::new(),
        };
        format!(
            "{} by {}: {}, prompts {} tok/s{answers} (timed {} s on {}, loading {} s)",
            stage.stage,
            stage.model,
            time(stage.seconds),
            short(stage.prompt_tokens_per_s),
            short(stage.timed_s),
            stage.device,
            short(stage.load_s)
        )
    };
    section("Measured on this machine", plan.measured.iter().map(one))
}

fn cards(plan: &Plan, currency: &str) -> String {
    let mut rows =
        vec![row(["card", "fits", "1 GPU, h", "2 GPUs, h", "4 GPUs, h", "8 GPUs, h", "kWh", currency, "tasks"])];
    for card in &plan.cards {
        let mut cells = vec![card.card.clone(), if card.fits { "yes" } else { "no" }.to_owned()];
        cells.extend(card.gpus.iter().map(|gpus| range(gpus.wall_hours)));
        if let Some(one) = card.gpus.first() {
            cells.push(range(one.kwh));
            cells.push(one.price.map_or_else(|| "-".to_owned(), range));
            cells.push(card.num_tasks.map_or_else(|| "-".to_owned(), grouped));
        }
        rows.push(cells);
    }
    let mut lines = if plan.cards.is_empty() { Vec::new() } else { table(&rows, 1) };
    if let Some(card) = shown_card(plan) {
        lines.push(format!("on one {}:", card.card));
        lines.extend(on_card(card));
    }
    lines.push(format!(
        "disk: models {}, run about {}, bundle {}",
        gigabytes(plan.disk.models),
        gigabytes(plan.disk.run),
        gigabytes(plan.disk.bundle)
    ));
    if !plan.what_would.is_empty() {
        lines.push(format!("CANNOT BE MADE AS ASKED: {}", plan.what_would.join("; ")));
    }
    let heading = match plan.cards.is_empty() {
        true => "Disk",
        false => "Hours (predicted by the cards' rooflines; until all is done, reserve included)",
    };
    section(heading, lines)
}

fn on_card(card: &CardPlan) -> Vec<String> {
    let mut lines = Vec::new();
    for model in &card.models {
        let rates = model.rates.map_or_else(String::new, |rates| {
            format!("; prompts {} tok/s, answers {} tok/s", range(rates.prefill), range(rates.decode))
        });
        lines.push(format!("  {}: sequences at once {}{rates}", model.model, room(&model.fit)));
    }
    for stage in &card.stages {
        let parts: Vec<String> =
            stage.parts.iter().map(|(part, seconds)| format!("{part} {}", time(*seconds))).collect();
        let parts = if parts.len() > 1 { format!(" ({})", parts.join(", ")) } else { String::new() };
        lines.push(format!("  {} {}: {}{parts}", stage.stage, stage.model, time(stage.seconds)));
    }
    lines
}

fn people(plan: &Plan) -> String {
    let effort = &plan.annotation;
    let mut lines = vec![format!(
        "{} items x {} people x {} s = {} person-hours",
        grouped(effort.num_items),
        effort.overlap,
        short(effort.seconds_per_vote),
        short(effort.person_hours)
    )];
    let mut rows = vec![row(["n", "win rate ±", "seen from 50 %", "agreement ±", "seen between judges"])];
    for power in &plan.power {
        rows.push(vec![
            grouped(power.n),
            points(power.win_rate_half_width),
            points_or_none(power.win_rate_difference),
            points(power.agreement_half_width),
            points_or_none(power.judges_difference),
        ]);
    }
    lines.extend(table(&rows, 1));
    lines.push("in percent points; 95 %, power 80 %, agreement 70 %, judges differ on 30 %".to_owned());
    section("People, and what so many items can show", lines)
}

fn terms(plan: &Plan) -> String {
    let parts = plan.licences.parts.iter().map(|part| {
        format!(
            "{} {}: {} ({})",
            part.part,
            part.name,
            part.licence.as_deref().unwrap_or("no licence stated"),
            kind(part.kind)
        )
    });
    let licences = section("Licences", parts.chain([plan.licences.in_words.clone()]));
    let risks = section("Risks", plan.risks.iter().map(|risk| format!("{}: {}", risk.what, risk.advice)));
    let assumed = section("Assumed", plan.assumptions.iter().cloned());
    [licences, risks, assumed].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}
