//! The plan in Markdown is Markdown, whatever models and rows are called.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::program::{done, run};

#[test]
fn markdown_parses_and_names_stay_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    done(&["make", "--demo", "--out", &path("demo"), "--device", "cpu", "--quiet"]);
    let hostile = "we*ird|name <b>[x](y)";
    std::fs::rename(path("demo/demo/model"), path(hostile)).unwrap();
    // No longer the toy, which has a name of its own.
    std::fs::write(path(&format!("{hostile}/generation_config.json")), "{}").unwrap();
    let (prompts, model) = (path("demo/demo/prompts.jsonl"), path(hostile));
    let rows = std::fs::read_to_string(&prompts).unwrap();
    std::fs::write(&prompts, rows.replace("\"Dutch\"", "\"Du|tch_x_ <img src=x>\"")).unwrap();
    let words = [
        "plan",
        "--prompts",
        &prompts,
        "--generator",
        &model,
        "--judge",
        &model,
        "--card",
        "A10",
        "--hours",
        "2",
        "--quiet",
    ];
    let markdown = done(&[&words[..], &["--markdown", "--price-per-kwh", "0.3", "--currency", "XOF"]].concat());
    let (mut headings, mut cells, mut widths, mut texts) = (Vec::new(), 0, Vec::new(), String::new());
    let mut heading = None;
    for event in Parser::new_ext(&markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => headings.extend(heading.take()),
            Event::Start(Tag::TableRow | Tag::TableHead) => cells = 0,
            Event::Start(Tag::TableCell) => cells += 1,
            Event::End(TagEnd::TableHead) => widths.push((cells, 0)),
            Event::End(TagEnd::TableRow) => {
                let (wide, rows) = widths.last_mut().unwrap();
                assert_eq!(*wide, cells);
                *rows += 1;
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
                texts += &text;
            }
            Event::Html(html) | Event::InlineHtml(html) => panic!("markup: {html}"),
            Event::Start(Tag::Link { .. } | Tag::Image { .. } | Tag::Emphasis | Tag::Strong) => {
                panic!("a name became markup")
            }
            _ => {}
        }
    }
    let wanted = ["What is made", "Models", "Computing", "Annotation", "Licences", "Risks", "What this stands on"];
    assert_eq!(headings[1..], wanted);
    assert_eq!(widths.len(), 6, "stages, models, cards, stages on a card, power, licences: {widths:?}");
    assert!(widths.iter().all(|(_, rows)| *rows > 0));
    assert!(texts.contains(hostile) && texts.contains("Du|tch_x_ <img src=x>"), "{texts}");
    assert!(texts.contains("price of 1 GPU, XOF") && texts.contains("person-hours"));
    let text = run(&words);
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    assert!(text.stdout.starts_with("Rows\n") && text.stdout.contains("\nLicences\n"));
}
