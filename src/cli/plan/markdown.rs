//! A plan as Markdown, to paste into an application for computing time: what is to be made, by which models, in which hours, and what people
//! do. Knows layout; counts nothing.

use super::super::models::gigabytes;
use super::words::{
    drops, grouped, kind, languages, points, points_or_none, quantiles, range, short, shown_card, time,
};
use crate::plan::Plan;

/// A text in a cell or line: nothing of it is markup.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '\\' | '#' | '~' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A table; cells are text.
fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut out = line(&head.iter().map(|cell| plain(cell)).collect::<Vec<_>>());
    out += &line(&vec!["---".to_owned(); head.len()]);
    for row in rows {
        out += &line(&row.iter().map(|cell| plain(cell)).collect::<Vec<_>>());
    }
    out + "\n"
}

/// The whole plan.
pub(super) fn markdown(plan: &Plan, currency: &str) -> String {
    let title = format!("# Plan: a preference dataset in {}\n\n", plain(&languages(plan, 3)));
    let made = format!(
        "Made with Pairwright {} on {}; ranges are from the better to the worse end.\n\n",
        plan.tool_version, plan.created
    );
    [title, made, what(plan), models(plan), hours(plan, currency), people(plan), terms(plan)].concat()
}

fn what(plan: &Plan) -> String {
    let rows = &plan.rows;
    let mut out = format!(
        "## What is made\n\nOf {} prompts with human answers {} are used (dropped: {}). Local models write a second answer to each and rate \
         both; the better and the worse answer make at most {} preference pairs, which people then check.\n\nLanguages: {}.\n\n",
        grouped(rows.num_rows_read),
        grouped(rows.num_records),
        plain(&drops(plan)),
        grouped(rows.most_pairs),
        plain(&languages(plan, 20))
    );
    out += &table(
        &["stage", "model", "rows", "prompt tokens", "computed", "generated tokens"],
        plan.stages.iter().map(|stage| {
            vec![
                stage.stage.to_owned(),
                stage.model.clone(),
                grouped(stage.num_rows),
                grouped(stage.num_prompt_tokens),
                grouped(stage.computed.values().sum()),
                grouped(stage.num_output_tokens),
            ]
        }),
    );
    for tokens in &plan.tokens {
        let by = if tokens.counted_by == "estimate" { ", estimated without its tokenizer" } else { "" };
        out += &format!(
            "Tokens of {}{by}: prompts {}; answers as expected {}, cut at {}.\n\n",
            plain(&tokens.model),
            quantiles(&tokens.prompts),
            quantiles(&tokens.expected),
            grouped(tokens.max_tokens as u64)
        );
    }
    out
}

fn models(plan: &Plan) -> String {
    let rows = plan.models.iter().map(|model| {
        let facts = &model.facts;
        let fits =
            model.fits.iter().find(|fit| fit.fits()).map(|fit| format!("{} GB", fit.memory_bytes / 1_000_000_000));
        vec![
            model.role.to_owned(),
            facts.name.clone(),
            format!("{} {}", facts.format, gigabytes(facts.weight_bytes)),
            facts.kv_bytes_per_token.map_or_else(|| "not known".to_owned(), grouped),
            fits.unwrap_or_else(|| if facts.kv_bytes_per_token.is_some() { "none" } else { "not known" }.to_owned()),
            facts.licence.clone().unwrap_or_else(|| "not stated".to_owned()),
        ]
    });
    let head = ["role", "model", "weights", "KV bytes per token", "smallest card", "licence"];
    format!("## Models\n\n{}", table(&head, rows))
}

fn hours(plan: &Plan, currency: &str) -> String {
    let mut out = "## Computing\n\n".to_owned();
    for stage in &plan.measured {
        out += &format!(
            "- measured: {} by {} takes {} on {}\n",
            plain(stage.stage),
            plain(&stage.model),
            time(stage.seconds),
            plain(&stage.device)
        );
    }
    if !plan.measured.is_empty() {
        out.push('\n');
    }
    let fitting: Vec<_> = plan.cards.iter().filter(|card| card.fits).collect();
    if !fitting.is_empty() {
        let price = format!("price of 1 GPU, {currency}");
        let head = [
            "card",
            "GPU hours, 1 GPU",
            "hours, 2 GPUs",
            "hours, 4 GPUs",
            "hours, 8 GPUs",
            "kWh",
            &price,
            "array tasks",
        ];
        out += &table(
            &head,
            fitting.iter().map(|card| {
                let mut cells = vec![card.card.clone()];
                cells.extend(card.gpus.iter().map(|gpus| range(gpus.wall_hours)));
                let one = card.gpus.first();
                cells.push(one.map_or_else(String::new, |one| range(one.kwh)));
                cells.push(one.and_then(|one| one.price).map_or_else(|| "not given".to_owned(), range));
                cells.push(card.num_tasks.map_or_else(|| "no limit given".to_owned(), grouped));
                cells
            }),
        );
    }
    if let Some(card) = shown_card(plan) {
        out += &format!("On one {}:\n\n", plain(&card.card));
        let rows = card.stages.iter().map(|stage| {
            let parts: Vec<String> =
                stage.parts.iter().map(|(part, seconds)| format!("{part} {}", time(*seconds))).collect();
            vec![
                stage.stage.to_owned(),
                stage.model.clone(),
                time(stage.seconds),
                if parts.len() > 1 { parts.join(", ") } else { String::new() },
            ]
        });
        out += &table(&["stage", "model", "time", "of this"], rows);
    }
    out += &format!(
        "Disk: {} for models, about {} for the run, {} for a bundle.\n\n",
        gigabytes(plan.disk.models),
        gigabytes(plan.disk.run),
        gigabytes(plan.disk.bundle)
    );
    if !plan.what_would.is_empty() {
        out += &format!("It cannot be made as asked: {}.\n\n", plain(&plan.what_would.join("; ")));
    }
    out
}

fn people(plan: &Plan) -> String {
    let effort = &plan.annotation;
    let mut out = format!(
        "## Annotation\n\nPeople compare the answers to {} prompts on a page of their own machine (`pairwright annotate serve`), blind and with \
         sides drawn, {} of them each prompt: {} votes of about {} seconds, {} person-hours.\n\n",
        grouped(effort.num_items),
        effort.overlap,
        grouped(effort.num_votes),
        short(effort.seconds_per_vote),
        short(effort.person_hours)
    );
    let head = [
        "items",
        "win rate ±",
        "distance from 50 % that is seen",
        "judge and people agree ±",
        "difference of judges that is seen",
    ];
    out += &table(
        &head,
        plan.power.iter().map(|power| {
            vec![
                grouped(power.n),
                points(power.win_rate_half_width),
                points_or_none(power.win_rate_difference),
                points(power.agreement_half_width),
                points_or_none(power.judges_difference),
            ]
        }),
    );
    out + &format!("In percent points. {}.\n\n", crate::plan::SOURCE)
}

fn terms(plan: &Plan) -> String {
    let rows = plan.licences.parts.iter().map(|part| {
        vec![
            part.part.to_owned(),
            part.name.clone(),
            part.licence.clone().unwrap_or_else(|| "not stated".to_owned()),
            kind(part.kind).to_owned(),
            part.terms.clone().unwrap_or_default(),
        ]
    });
    let mut out = format!("## Licences\n\n{}", table(&["part", "name", "licence", "kind", "asks for"], rows));
    out += &format!("{}\n\n", plain(&plan.licences.in_words));
    if !plan.risks.is_empty() {
        out += "## Risks\n\n";
        out.extend(plan.risks.iter().map(|risk| format!("- {}: {}\n", plain(&risk.what), plain(&risk.advice))));
        out.push('\n');
    }
    out += "## What this stands on\n\n";
    out.extend(plan.assumptions.iter().map(|line| format!("- {}\n", plain(line))));
    out
}
