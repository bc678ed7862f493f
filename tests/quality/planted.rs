//! Fifty defects of each kind in each of five languages and four scripts, planted into paragraphs of the Universal Declaration of Human
//! Rights. Knows what was planted; does not know how it is found. The table of what was found:
//! `cargo test --release --test quality planted_defects -- --nocapture`. The program's profile was trained on the same paragraphs, among
//! others, so what is shown here of languages is that checks work, not how well languages are told apart.

use std::collections::{BTreeMap, BTreeSet};

use pairwright::data::PromptRecord;
use pairwright::generate::Candidate;
use pairwright::generate::FinishReason::{Length, Stop};
use pairwright::quality::{Flag, HeldOutTexts, Row, RowQuality, assess, default_profile};

use crate::{answer, paragraphs, record};

/// Rows of each kind in each language.
const NUM_ROWS: usize = 50;

/// A language, two of wrong answers (one close or of the same script, one not), refusals and preambles in it.
struct Language {
    code: &'static str,
    others: [&'static str; 2],
    refusals: [&'static str; 3],
    preambles: [&'static str; 3],
}

const LANGUAGES: [Language; 5] = [
    Language {
        code: "nld",
        others: ["eng", "rus"],
        refusals: [
            "Het spijt me, maar als taalmodel kan ik hier helaas geen antwoord op geven, want",
            "Sorry, daar kan ik je niet mee helpen. Ik ben een AI en",
            "Ik begrijp je vraag, maar ik mag over dit onderwerp niets zeggen:",
        ],
        preambles: [
            "Natuurlijk! Hier is het antwoord op je vraag:",
            "Zeker, hieronder staat de tekst die je wilde hebben:",
            "Goede vraag. Dit is mijn antwoord:",
        ],
    },
    Language {
        code: "swa",
        others: ["nld", "hin"],
        refusals: [
            "Samahani sana, mimi kama mfumo wa lugha siwezi kabisa kujibu swali lako hili, kwa sababu",
            "Pole, siwezi kukusaidia katika jambo hili. Mimi ni programu ya kompyuta na",
            "Ninaelewa swali lako, lakini sina ruhusa ya kuzungumzia mada hii:",
        ],
        preambles: [
            "Bila shaka! Hili hapa ni jibu la swali lako:",
            "Sawa, haya ndiyo maandishi uliyoomba:",
            "Swali zuri. Jibu langu ni hili:",
        ],
    },
    Language {
        code: "rus",
        others: ["ukr", "hin"],
        refusals: [
            "К сожалению, как языковая модель я никак не могу ответить на этот вопрос, потому что",
            "Извините, но я не могу помочь вам с этой просьбой. Я искусственный интеллект, и",
            "Я понимаю ваш вопрос, однако эту тему мне обсуждать запрещено:",
        ],
        preambles: [
            "Конечно! Вот ответ на ваш вопрос:",
            "Разумеется, ниже приведён нужный вам текст:",
            "Хороший вопрос. Мой ответ таков:",
        ],
    },
    Language {
        code: "hin",
        others: ["mar", "rus"],
        refusals: [
            "मुझे खेद है, एक भाषा मॉडल होने के नाते मैं इस प्रश्न का उत्तर नहीं दे सकता, क्योंकि",
            "माफ़ कीजिए, मैं इस काम में आपकी मदद नहीं कर सकता। मैं एक मशीन हूँ और",
            "मैं आपका प्रश्न समझता हूँ, लेकिन मुझे इस विषय पर बोलने की अनुमति नहीं है:",
        ],
        preambles: [
            "ज़रूर! आपके प्रश्न का उत्तर यह रहा:",
            "बिल्कुल, आपने जो पाठ माँगा था वह नीचे है:",
            "अच्छा प्रश्न है। मेरा उत्तर यह है:",
        ],
    },
    Language {
        code: "tha",
        others: ["lao", "eng"],
        refusals: [
            "ขออภัย ในฐานะแบบจำลองภาษา ฉันไม่สามารถตอบคำถามนี้ได้ เพราะว่า",
            "เสียใจด้วย ฉันช่วยคุณเรื่องนี้ไม่ได้ ฉันเป็นเพียงโปรแกรม และ",
            "ฉันเข้าใจคำถามของคุณ แต่ฉันไม่ได้รับอนุญาตให้พูดเรื่องนี้:",
        ],
        preambles: ["ได้เลย! นี่คือคำตอบสำหรับคำถามของคุณ:", "แน่นอน ข้อความที่คุณต้องการอยู่ด้านล่างนี้:", "คำถามดีมาก คำตอบของฉันคือ:"],
    },
];

/// What is planted, and the flag that should be found: the six, and three more.
const KINDS: [(&str, Flag); 9] = [
    ("wrong language", Flag::WrongLanguage),
    ("truncated", Flag::Truncated),
    ("repeated", Flag::Repetition),
    ("refusal", Flag::CommonOpening),
    ("echo", Flag::Echo),
    ("near-identical answer", Flag::NearIdentical),
    ("near-duplicate prompt", Flag::NearDuplicate),
    ("leaked marker", Flag::LeakedMarkers),
    ("preamble", Flag::Preamble),
];

struct Made {
    kind: &'static str,
    record: PromptRecord,
    answers: [Candidate; 2],
}

fn head(text: &str, num_characters: usize) -> String {
    text.chars().take(num_characters).collect()
}

/// A text with something small changed, in five ways.
fn nearly(text: &str, at: usize) -> String {
    let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(place, _)| place);
    let (start, end) = text.split_at(middle);
    match at % 5 {
        0 => format!("{} !", text.to_uppercase()),
        1 => format!("{start}{}", end.chars().skip(2).collect::<String>()),
        2 => text.replace([',', '.', '।'], " ;") + " …",
        3 => format!("{start}, {end}"),
        _ => format!("{at}. {text}"),
    }
}

/// A text that goes round, in six ways.
fn repeated(good: &str, other: &str, at: usize) -> String {
    match at % 6 {
        0 => format!("{good} {}", format!("{} ", head(good, 25)).repeat(9)),
        1 => format!("{good}\n").repeat(3),
        2 => format!("{good} {}", head(other, 8).repeat(20)),
        3 => format!("{other}\n{}", format!("{good}\n").repeat(3)),
        4 => format!("{good} {other} {good}\n").repeat(2),
        _ => format!("{good} {}{}", head(other, 60).repeat(6), head(other, 17)),
    }
}

/// The prompt again, in five ways.
fn echo(prompt: &str, at: usize) -> String {
    let length = prompt.chars().count();
    match at % 5 {
        0 => prompt.to_owned(),
        1 => format!("\"{prompt}\" ?"),
        2 => head(prompt, length * 2 / 3),
        3 => format!("{at}: {}", prompt.to_uppercase()),
        _ => prompt.chars().skip(length / 4).collect(),
    }
}

/// All rows of a language: fifty of each kind, and fifty clean ones before them.
fn rows(language: &Language) -> Vec<Made> {
    let texts = paragraphs(language.code);
    let foreign = language.others.map(paragraphs);
    assert_eq!(texts.len(), NUM_ROWS);
    let prompt = |kind: usize, at: usize| {
        let part = |step: usize| head(&texts[(at + step) % NUM_ROWS], 120);
        format!("{} {} {}", part(5 + kind), part(15 + 2 * kind), part(34 + kind))
    };
    let mut made = Vec::new();
    for (number, kind) in std::iter::once("clean").chain(KINDS.iter().map(|(kind, _)| *kind)).enumerate() {
        for at in 0..NUM_ROWS {
            let text = |step: usize| texts[(at + step) % NUM_ROWS].as_str();
            // Of the clean ones some are lists, and one of the two says so first.
            let is_list = kind == "clean" && at % 5 == 4;
            let listed = format!("- {}\n- {}\n- {}", text(7), text(8), text(9));
            let human = if is_list { listed.as_str() } else { text(1) };
            let good = text(2);
            let asked = match kind {
                "near-duplicate prompt" => nearly(&prompt(0, at), at),
                _ => prompt(number, at),
            };
            let generated = match kind {
                "wrong language" => foreign[at % 2][at].clone(),
                "truncated" => head(good, 20 + at),
                "repeated" => repeated(good, text(3), at),
                "refusal" => format!("{} {good}", language.refusals[at % 3]),
                "echo" => echo(&asked, at),
                "near-identical answer" => nearly(human, at),
                "preamble" => format!("{}{}{good}", language.preambles[at % 3], ["\n\n", "\n", "\n \n"][at / 3 % 3]),
                "clean" if is_list => format!("{}:\n\n1. {good}\n2. {}", head(text(3), 40), text(4)),
                "leaked marker" => {
                    let marker =
                        ["<|im_end|>\n<|im_start|>user", "</s>", "\n### Response: ", "<end_of_turn>", "\n</think>"]
                            [at % 5];
                    format!("{good}{marker}")
                }
                _ => good.to_owned(),
            };
            let id = format!("{}-{kind}-{at}", language.code);
            let reason = if kind == "truncated" { Length } else { Stop };
            let answers = [answer(&id, "human", human, Stop), answer(&id, "writer", &generated, reason)];
            made.push(Made { kind, record: record(&id, &asked, human, language.code), answers });
        }
    }
    made
}

/// What people really answered to the demonstration's prompts, in sixteen languages: short, with numbers, quotations and translations.
fn demonstration() -> Vec<(PromptRecord, Candidate)> {
    let lines = pairwright::demo::prompts_jsonl().lines().enumerate();
    let row = |(at, line): (usize, &str)| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| row[name].as_str().unwrap();
        let id = format!("demo-{at}");
        let record = PromptRecord {
            language: text("language").to_owned(),
            ..record(&id, text("inputs"), text("targets"), text("language_code"))
        };
        (record, answer(&id, "human", text("targets"), Stop))
    };
    lines.map(row).collect()
}

fn as_rows(made: &[Made]) -> Vec<Row<'_>> {
    made.iter().map(|made| Row { record: &made.record, answers: made.answers.iter().collect() }).collect()
}

/// Whether what was planted into a row was found.
fn is_found(flag: Flag, found: &RowQuality) -> bool {
    found.flags.contains(&flag) || found.answers[1].flags.contains(&flag)
}

#[test]
fn planted_defects_are_found_and_clean_answers_left_alone() {
    let made: Vec<Made> = LANGUAGES.iter().flat_map(rows).collect();
    let (found, summary) = assess(&as_rows(&made), default_profile(), None);
    let mut hits: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    // Of each group of clean texts: how many there are, and the alarms.
    let mut clean: BTreeMap<&str, (usize, Vec<String>)> = BTreeMap::new();
    let mut look = |group: &'static str, id: &str, flags: &BTreeSet<Flag>| {
        let (number, alarms) = clean.entry(group).or_default();
        *number += 1;
        if !flags.is_empty() {
            alarms.push(format!("{id}: {flags:?}"));
        }
    };
    for (made, found) in made.iter().zip(&found) {
        look("human answers, declaration", &made.record.id, &found.answers[0].flags);
        if made.kind == "clean" {
            look("clean generated answers", &made.record.id, &found.answers[1].flags);
        }
        if made.kind != "near-duplicate prompt" {
            look("prompts unlike the others", &made.record.id, &found.flags);
        }
        let planted = KINDS.iter().find(|(kind, _)| *kind == made.kind);
        if planted.is_some_and(|(_, flag)| is_found(*flag, found)) {
            *hits.entry((made.kind, &made.record.language_code)).or_default() += 1;
        }
    }
    let demonstration = demonstration();
    let short: Vec<Row<'_>> =
        demonstration.iter().map(|(record, human)| Row { record, answers: vec![human] }).collect();
    for ((record, _), found) in demonstration.iter().zip(assess(&short, default_profile(), None).0) {
        look("human answers, demonstration", &record.id, &found.answers[0].flags);
    }
    let codes = LANGUAGES.map(|language| language.code);
    println!("{:24}{}", "found of 50", codes.map(|code| format!("{code:>6}")).concat());
    for (kind, _) in KINDS {
        let numbers = codes.map(|code| hits.get(&(kind, code)).copied().unwrap_or(0));
        println!("{kind:24}{}", numbers.map(|number| format!("{number:6}")).concat());
    }
    for (group, (number, alarms)) in &clean {
        println!("false alarms, {group}: {} of {number}", alarms.len());
    }
    for (kind, _) in KINDS {
        for code in codes {
            let number = hits.get(&(kind, code)).copied().unwrap_or(0);
            assert!(number * 100 >= NUM_ROWS * 95, "{kind} in {code}: {number} of {NUM_ROWS}");
        }
    }
    for (group, (number, alarms)) in &clean {
        assert!(alarms.len() * 50 <= *number, "{} alarms in {number} {group}: {alarms:?}", alarms.len());
    }
    assert_eq!(summary.openings.iter().map(|opening| &opening.language).collect::<BTreeSet<_>>().len(), 5);
}

/// Flags of a generated answer beside a person's.
fn flags_beside(code: &str, prompt: &str, human: &str, generated: &str) -> BTreeSet<Flag> {
    let record = record("one", prompt, human, code);
    let answers = [answer("one", "human", human, Stop), answer("one", "writer", generated, Stop)];
    let rows = [Row { record: &record, answers: answers.iter().collect() }];
    let (found, _) = assess(&rows, default_profile(), None);
    assert!(found[0].answers[0].flags.is_empty(), "{found:?}");
    found[0].answers[1].flags.clone()
}

#[test]
fn a_short_human_answer_says_which_language_was_asked_for() {
    let into_english = "Μετάφρασε στα αγγλικά: «Η θάλασσα είναι ήρεμη.»";
    let translated = "In English one would say that the sea is calm today.";
    assert!(flags_beside("ell", into_english, "The sea is calm.", translated).is_empty());
    assert!(flags_beside("nld", "Vertaal naar het Engels: 'hond'", "the dog", translated).is_empty());
    // Short as it is, this one is Spanish, and that one Greek.
    let wrong = BTreeSet::from([Flag::WrongLanguage]);
    assert_eq!(flags_beside("spa", "¿Cuánto es 12 por 8?", "12 por 8 es 96.", translated), wrong);
    assert_eq!(flags_beside("ell", "Γράψε τρία χρώματα.", "Κόκκινο, μπλε.", translated), wrong);
}

#[test]
fn what_announces_prose_is_a_preamble_and_what_announces_a_list_is_none() {
    let human = "De zee is vandaag kalm en blauw, en de boot ligt stil.";
    let of = |text: &str| flags_beside("nld", "Schrijf een zin over de zee.", human, text).contains(&Flag::Preamble);
    let prose = "De zee was kalm, en aan de horizon voer een boot voorbij.";
    assert!(of(&format!("**Natuurlijk, hier is een zin over de zee:**\n\n{prose}")));
    for text in [
        format!("Natuurlijk, hier is een zin over de zee: {prose}"),
        format!("Dit zijn drie zinnen over de zee:\n\n1. {prose}\n2. {prose} Ja."),
        format!("Dit zijn zinnen over de zee:\n• {prose}"),
        format!("Iemand zei eens dit over de zee:\n\n\"{prose}\""),
        format!("De zee:\n{prose}"),
        prose.to_owned(),
    ] {
        assert!(!of(&text), "{text}");
    }
    let same = format!("Een zin over de zee gaat zo:\n{human}");
    assert!(
        !flags_beside("nld", "Schrijf een zin over de zee.", &same, &format!("Hier is een zin voor je:\n{prose}"))
            .contains(&Flag::Preamble)
    );
}

#[test]
fn thirteen_words_of_a_held_out_text_are_found_and_twelve_are_not() {
    let dutch = paragraphs("nld")[0].clone();
    let words: Vec<&str> = dutch.split_whitespace().collect();
    let held_out = HeldOutTexts::new([dutch.as_str()].into_iter());
    let part = |range: std::ops::Range<usize>| {
        format!("Iets anders, {}! En nog iets.", words[range].join("  ").to_uppercase())
    };
    assert!(held_out.overlaps(&part(3..16)) && !held_out.overlaps(&part(3..15)));
    // In scripts without spaces from any character on: two make a word in Han, five in Thai.
    let han = "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。";
    let thai: String = paragraphs("tha")[0].chars().filter(|character| *character != ' ').collect();
    for (text, enough, step) in [(han, 26, 2), (thai.as_str(), 65, 5)] {
        let held_out = HeldOutTexts::new([text].into_iter());
        let letters: String = text.chars().filter(|character| character.is_alphanumeric()).collect();
        assert!(letters.chars().count() > enough, "{letters}");
        let part = |length: usize| text.chars().skip(3).take(length).collect::<String>() + "ก一";
        assert!((enough..enough + 4).any(|length| held_out.overlaps(&part(length))), "{text}");
        assert!(!held_out.overlaps(&part(enough - step)), "{text}");
    }
    // Shorter ones as a whole, and a model's answer as well as a person's.
    let short = HeldOutTexts::new(["Wat is de hoofdstad van Peru?"].into_iter());
    assert!(
        short.overlaps("wat is de hoofdstad van peru")
            && !short.overlaps("Wat is de hoofdstad van Peru, en waar ligt die?")
    );
    let record = record("one", "Vertel iets.", "Goed, dat doe ik.", "nld");
    let answers = [answer("one", "human", "Goed, dat doe ik.", Stop), answer("one", "writer", &dutch, Stop)];
    let (found, _) =
        assess(&[Row { record: &record, answers: answers.iter().collect() }], default_profile(), Some(&held_out));
    assert!(found[0].flags.is_empty() && found[0].answers[0].flags.is_empty());
    assert!(found[0].answers[1].flags.contains(&Flag::Contaminated));
}

#[test]
fn near_duplicate_prompts_make_a_group_and_held_out_ones_are_told() {
    let mut prompts = Vec::new();
    for Language { code, .. } in LANGUAGES {
        for text in paragraphs(code) {
            prompts.push((code, text.clone(), false));
            prompts.push((code, format!("  {}!", text.to_uppercase()), true));
        }
    }
    let made: Vec<_> =
        prompts.iter().enumerate().map(|(at, (code, text, _))| record(&format!("{at}"), text, "-", code)).collect();
    let rows: Vec<Row<'_>> = made.iter().map(|record| Row { record, answers: Vec::new() }).collect();
    let held = paragraphs("hin");
    let (found, _) = assess(&rows, default_profile(), Some(&HeldOutTexts::new(held.iter().map(String::as_str))));
    let copies = prompts.iter().zip(&found).filter(|((_, _, copy), _)| *copy);
    let hit = copies.filter(|(_, found)| found.flags.contains(&Flag::NearDuplicate)).count();
    assert!(hit >= 238, "{hit} of 250 copies");
    let firsts = prompts.iter().zip(&found).filter(|((_, _, copy), _)| !*copy);
    let wrong = firsts.filter(|(_, found)| found.flags.contains(&Flag::NearDuplicate)).count();
    assert!(wrong <= 5, "{wrong} of 250 first ones");
    for ((code, _, _), found) in prompts.iter().zip(&found) {
        assert_eq!(found.flags.contains(&Flag::Contaminated), *code == "hin", "{code}");
    }
}
