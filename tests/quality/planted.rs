//! Fifty defects of each kind in each of five languages, planted into paragraphs of the Universal Declaration of Human Rights. Knows what
//! was planted; does not know how it is found. The program's profile was trained on the same paragraphs, among others, so what is shown here
//! of languages is that checks work, not how well languages are told apart.

use std::collections::{BTreeMap, BTreeSet};

use pairwright::generate::FinishReason::{Length, Stop};
use pairwright::quality::{Flag, HeldOutTexts, Row, assess, default_profile};

use crate::{answer, paragraphs, record};

/// A language, the one of wrong answers, and a refusal in it.
const LANGUAGES: [(&str, &str, &str); 5] = [
    ("nld", "swa", "Het spijt me, maar als taalmodel kan ik hier helaas geen antwoord op geven, want"),
    ("swa", "nld", "Samahani sana, mimi kama mfumo wa lugha siwezi kabisa kujibu swali lako hili, kwa sababu"),
    ("rus", "hin", "К сожалению, как языковая модель я никак не могу ответить на этот вопрос, потому что"),
    ("hin", "rus", "मुझे खेद है, एक भाषा मॉडल होने के नाते मैं इस प्रश्न का उत्तर नहीं दे सकता, क्योंकि"),
    ("tha", "nld", "ขออภัย ในฐานะแบบจำลองภาษา ฉันไม่สามารถตอบคำถามนี้ได้ เพราะว่า"),
];

const KINDS: [(&str, Flag); 7] = [
    ("wrong", Flag::WrongLanguage),
    ("cut", Flag::Truncated),
    ("loop", Flag::Repetition),
    ("refusal", Flag::CommonOpening),
    ("echo", Flag::Echo),
    ("copy", Flag::NearIdentical),
    ("marker", Flag::LeakedMarkers),
];

struct Made {
    kind: &'static str,
    record: pairwright::data::PromptRecord,
    answers: [pairwright::generate::Candidate; 2],
}

/// All rows of a language: fifty of each kind, and fifty clean ones.
fn rows(code: &str, other: &str, refusal: &str) -> Vec<Made> {
    let (texts, foreign) = (paragraphs(code), paragraphs(other));
    assert_eq!(texts.len(), 50);
    let kinds = KINDS.iter().map(|(kind, _)| *kind).chain(["clean"]);
    let mut made = Vec::new();
    for kind in kinds {
        for at in 0..50 {
            let text = |step: usize| texts[(at + step) % 50].as_str();
            let (prompt, human, good) = (format!("{} {kind} {at}: {}", text(11), text(29)), text(0), text(17));
            let start: String = good.chars().take(25).collect();
            let generated = match kind {
                "wrong" => foreign[at].clone(),
                "loop" => format!("{good} {}", format!("{start} ").repeat(9)),
                "refusal" => format!("{refusal} {good}"),
                "echo" => prompt.clone(),
                "copy" => format!("{human} ."),
                "marker" => format!("{good}<|im_end|>\n<|im_start|>user"),
                _ => good.to_owned(),
            };
            let id = format!("{code}-{kind}-{at}");
            let answers = [
                answer(&id, "human", human, Stop),
                answer(&id, "writer", &generated, if kind == "cut" { Length } else { Stop }),
            ];
            made.push(Made { kind, record: record(&id, &prompt, human, code), answers });
        }
    }
    made
}

#[test]
fn planted_defects_are_found_and_clean_answers_left_alone() {
    let made: Vec<Made> = LANGUAGES.iter().flat_map(|(code, other, refusal)| rows(code, other, refusal)).collect();
    let rows: Vec<Row<'_>> =
        made.iter().map(|made| Row { record: &made.record, answers: made.answers.iter().collect() }).collect();
    let (found, summary) = assess(&rows, default_profile(), None);
    let mut hits: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let (mut alarms, mut num_clean) = (Vec::new(), 0);
    for (made, found) in made.iter().zip(&found) {
        let [human, generated] = found.answers.as_slice() else { panic!("two answers") };
        let expected = KINDS.iter().find(|(kind, _)| *kind == made.kind).map(|(_, flag)| *flag);
        match expected {
            Some(flag) if generated.flags.contains(&flag) => {
                *hits.entry((&made.record.language_code, made.kind)).or_default() += 1;
            }
            Some(_) => {}
            None => {
                num_clean += 2;
                for flags in [&human.flags, &generated.flags].into_iter().filter(|flags| !flags.is_empty()) {
                    alarms.push((made.record.id.clone(), flags.clone()));
                }
            }
        }
    }
    for (code, _, _) in LANGUAGES {
        for (kind, _) in KINDS {
            let number = hits.get(&(code, kind)).copied().unwrap_or(0);
            assert!(number * 100 >= 50 * 95, "{kind} in {code}: {number} of 50");
        }
    }
    assert!(alarms.len() * 50 <= num_clean, "{} alarms in {num_clean} clean answers: {alarms:?}", alarms.len());
    assert_eq!(summary.openings.iter().map(|opening| &opening.language).collect::<BTreeSet<_>>().len(), 5);
}

#[test]
fn near_duplicate_prompts_make_a_group_and_held_out_ones_are_told() {
    let mut prompts = Vec::new();
    for (code, _, _) in LANGUAGES {
        for text in paragraphs(code) {
            let (first, rest) = text.split_at_checked(0).unwrap();
            prompts.push((code, text.clone(), false));
            prompts.push((code, format!("{first}  {}!", rest.to_uppercase()), true));
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
