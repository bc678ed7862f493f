#!/usr/bin/env bash
# The pages for people who vote, in a real browser: desk and phone, English, Arabic and Thai; what is done and looked for is in
# check_annotate.mjs. The browser speaks to this machine alone.
#   scripts/check_annotate.sh [--shots FOLDER]   needs Chromium, Node and axe-core
#   scripts/check_annotate.sh --can              whether these are there; --install gets axe-core by npm (the others: check_pages.sh)
set -euo pipefail
cd "$(dirname "$0")/.."

axe="${AXE:-${CARGO_TARGET_DIR:-target}/axe}"
if [[ "${1:-}" == --install ]]; then
    mkdir -p "$axe"
    (cd "$axe" && npm pack --silent axe-core@4.14.1 && tar xzf axe-core-4.14.1.tgz)
    exit
fi
CHROMIUM="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}"
export CHROMIUM
if [[ -z "$CHROMIUM" ]] || ! command -v node >/dev/null || [[ ! -s "$axe/package/axe.min.js" ]]; then
    echo "check_annotate: needs Chromium and Node (check_pages.sh --install) and axe-core (--install)" >&2
    exit 3
fi
[[ "${1:-}" != --can ]] || exit 0

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
[[ -n "${PROGRAM:-}" ]] || cargo build --release --locked
program=$(realpath "${PROGRAM:-${CARGO_TARGET_DIR:-target}/release/pairwright}")
"$program" make --demo --out "$folder/demo" --quiet

node - "$folder/prompts.jsonl" <<'END_OF_ROWS'
const { writeFileSync } = require("node:fs");
const texts = [
  ["Arabic", "arb", "ما عاصمة المغرب؟ اذكر (باختصار) شيئاً عنها بالإنجليزية English أيضاً.", "الرباط هي عاصمة المغرب، وتقع على المحيط الأطلسي. "],
  ["Thai", "tha", "เมืองหลวงของประเทศไทยคือเมืองอะไร", "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทยและมีประชากรมากที่สุด"],
  ["Urdu", "urd", "پاکستان کا دارالحکومت کیا ہے؟", "اسلام آباد پاکستان کا دارالحکومت ہے۔ "],
  ["Hindi", "hin", "भारत की राजधानी क्या है?", "नई दिल्ली भारत की राजधानी है। "],
  ["Burmese", "mya", "မြန်မာနိုင်ငံ၏ မြို့တော်မှာ အဘယ်နည်း။", "နေပြည်တော်သည် မြန်မာနိုင်ငံ၏ မြို့တော်ဖြစ်သည်။ "],
  ["Amharic", "amh", "የኢትዮጵያ ዋና ከተማ ማን ናት?", "አዲስ አበባ የኢትዮጵያ ዋና ከተማ ናት። "],
  ["English", "eng", "<script>window.owned=1</script> What is this?", "<img src=x onerror=\"window.owned=1\"> It is text.\n\n* one\n* two "],
];
const rows = Array.from({ length: 42 }, (_, at) => {
  const [language, code, prompt, answer] = texts[at % texts.length];
  return JSON.stringify({ inputs: `${prompt} (${at})`, targets: answer.repeat(1 + at % 5), language, language_code: code });
});
writeFileSync(process.argv[2], rows.join("\n") + "\n");
END_OF_ROWS
toy="$folder/demo/demo/model"
"$program" make --prompts "$folder/prompts.jsonl" --generator "$toy" --judge "$toy" --max-tokens 30 --samples 2 --out "$folder/run" --quiet 2>/dev/null
"$program" annotate pack "$folder/run" -n 5 --interface ar -o "$folder/pack.html" 2>/dev/null
node scripts/check_annotate.mjs "$@" "$program" "$folder/run" "$axe/package/axe.min.js" "$folder/pack.html"
