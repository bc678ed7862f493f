//! The bench's page: no text of a row, a source or a model directory becomes markup, it asks for nothing, it holds what the table says, and
//! making it again gives the same bytes. How it looks is `scripts/check_pages.sh`'s part.

use pairwright::bench::table;

use super::html::texts_of;
use super::program::{done, text, tree};
use super::whole::{MODELS, arguments, borrowed};
use super::workshop::Workshop;

/// Texts that would be markup, leave their place, or turn the page around.
const HOSTILE: [&str; 6] = [
    "<script>document.title='OWNED'</script>",
    "</div></article></main><style>*{display:none}</style>",
    "\u{202E}txt.exe\u{202D} \u{2067}a",
    "\" style=\"background:url(https://evil.example/x)\" x=\"",
    "{{ self }} {% include \"x\" %} | a | b |\n|---|",
    "</title></style></svg><svg onload=alert(1)>",
];

#[test]
fn no_text_becomes_markup_and_the_page_holds_what_the_table_says() {
    let workshop = Workshop::new();
    // Each prompt has all of them, since a page shows some rows of many.
    let texts: Vec<[String; 2]> =
        (0..6).map(|at| [format!("{} {at}", HOSTILE.join(" ")), format!("أهلا {at} {}", HOSTILE[at])]).collect();
    let rows: Vec<[&str; 4]> =
        texts.iter().map(|[prompt, answer]| [prompt.as_str(), answer.as_str(), "Dutch</h3><b>", "nld"]).collect();
    let prompts = workshop.prompts("prompts.jsonl", &rows);
    let mut all = arguments(&workshop, &prompts, "bench", &["Dutch</h3><b>"], &[]);
    // Without a judge and its rubric, which the page says.
    let at = all.iter().position(|argument| argument == "--judge").unwrap();
    all.drain(at..at + 2);
    done(&borrowed(&all));
    let path = workshop.path("bench/report.html");
    let page = std::fs::read_to_string(&path).unwrap();
    // The reader takes the few tags and attributes of the templates and nothing else, and no address.
    let texts = texts_of(&page).unwrap();
    for hostile in HOSTILE {
        let shown = hostile.replace('\u{202E}', "⟨U+202E⟩").replace('\u{202D}', "⟨U+202D⟩");
        assert!(texts.contains(&shown), "{shown} is not on the page");
    }
    for model in MODELS {
        assert!(texts.contains(model), "{model}");
    }
    let figures = table::read(&workshop.path("bench/figures.parquet")).unwrap();
    let bits = figures.iter().find(|figure| figure.metric == "bits_per_byte").unwrap();
    let shown = if bits.value >= 10.0 { format!("{:.2}", bits.value) } else { format!("{:.3}", bits.value) };
    assert!(texts.contains(&shown), "{shown} is not on the page");
    assert!(page.contains("without a judge"));
    let markdown = std::fs::read_to_string(workshop.path("bench/report.md")).unwrap();
    assert!(markdown.contains(&shown) && markdown.contains("## What the metrics are"));

    let before = tree(&workshop.path("bench"));
    done(&["bench", "report", text(&workshop.path("bench")), "-q"]);
    assert!(tree(&workshop.path("bench")) == before, "the report made again is another one");
}
