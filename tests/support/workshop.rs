//! A temporary folder with prompts and a short rubric, for tests that run whole jobs.
//! Knows file formats; makes no claim about results.

use std::path::PathBuf;

use tempfile::TempDir;

use super::program::text;

/// Questions that fit the fixtures' context of 512 byte-level tokens, rated whatever their label mass.
pub const RUBRIC: &str = "name = \"short\"\nversion = 1\nlabels = [\"1\", \"2\", \"3\", \"4\", \"5\"]\nmin_label_mass = 0.0\n\
    intro = \"Rate the answer.\"\nprompt_heading = \"### P\"\nanswer_heading = \"### A\"\n\
    [[aspect]]\nname = \"form\"\nweight = 1.0\nquestion = \"Form, 1 to 5?\"\n\
    [[aspect]]\nname = \"overall\"\nweight = 3.0\nquestion = \"All in all, 1 to 5?\"\n";

/// Prompt, human answer, language, code: several scripts, emoji and combining marks.
pub const ROWS: [[&str; 4]; 12] = [
    ["Hoeveel dagen heeft een week?", "Zeven dagen.", "Dutch", "nld"],
    ["ما عاصمة مصر؟", "القاهرة.", "Arabic", "arb"],
    ["भारत की राजधानी क्या है?", "नई दिल्ली।", "Hindi", "hin"],
    ["น้ำเดือดที่กี่องศา", "๑๐๐ องศาเซลเซียส", "Thai", "tha"],
    ["የኢትዮጵያ ዋና ከተማ ማን ናት?", "አዲስ አበባ።", "Amharic", "amh"],
    ["日本の首都はどこですか。", "東京です。", "Japanese", "jpn"],
    ["Say it with emoji 👩🏽‍🚀🚀", "👩🏽‍🚀 → 🚀 → 🌕", "English", "eng"],
    ["e\u{301} or é: which is it?", "Both; e\u{301} is two code points.", "English", "eng"],
    ["Wat is \"waar\"?\nEn een tweede regel.", "Dat is zo.\n\n- punt\n", "Dutch", "nld"],
    ["Ile nóg ma pająk?", "Osiem.", "Polish", "pol"],
    ["Πόσες μέρες έχει ο Μάιος;", "Τριάντα μία.", "Greek", "ell"],
    ["Чи є життя на Марсі?", "Невідомо.", "Ukrainian", "ukr"],
];

/// See the module's text.
pub struct Workshop {
    dir: TempDir,
}

impl Workshop {
    /// An empty folder with the short rubric in it.
    pub fn new() -> Self {
        let workshop = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        workshop.write("rubric.toml", RUBRIC);
        workshop
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as an argument.
    pub fn arg(&self, name: &str) -> String {
        text(&self.path(name)).to_owned()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("create a folder");
        std::fs::write(&path, content).expect("write a file");
        path
    }

    /// Writes JSONL prompts with Aya's names.
    pub fn prompts(&self, name: &str, rows: &[[&str; 4]]) -> PathBuf {
        let line = |row: &[&str; 4]| {
            let [inputs, targets, language, language_code] = row;
            serde_json::json!({"inputs": inputs, "targets": targets, "language": language, "language_code": language_code})
                .to_string()
                + "\n"
        };
        self.write(name, rows.iter().map(line).collect::<String>())
    }
}
