#!/usr/bin/env bash
# The report's pages in a real browser: the demonstration's, and one whose rows are long, in many scripts, and mean harm; and a bench's. Light and dark, desk
# and phone; what is looked for is in check_pages.mjs. Where the machine allows it, the browser has no network to reach.
#   scripts/check_pages.sh [--shots FOLDER]   needs Chromium and Node
#   scripts/check_pages.sh --can              whether these are there; --install gets them on Debian, as root
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ "${1:-}" == --install ]]; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium nodejs fonts-noto-core
    exit
fi
CHROMIUM="${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}"
export CHROMIUM
if [[ -z "$CHROMIUM" ]] || ! command -v node >/dev/null; then
    echo "check_pages: needs Chromium and Node (--install gets them)" >&2
    exit 3
fi
[[ "${1:-}" != --can ]] || exit 0

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cargo build --release --locked
program=$(realpath "${CARGO_TARGET_DIR:-target}/release/pairwright")
"$program" make --demo --out "$folder/demo" --quiet

# Rows of our own, beside the demonstration's: right to left, marks above and below, no spaces, and markup that must stay text.
node - "$folder/demo/demo/prompts.jsonl" "$folder/prompts.jsonl" <<'END'
const { readFileSync, writeFileSync } = require("node:fs");
const harm = ["<script>document.title='OWNED';window.owned=1</script>", "\"]]><img src=http://127.0.0.1:9/x onerror=\"window.owned=1\">",
  "</div></article><style>body{display:none}</style>", "\u202e drow \u0000 \u001b[31m \u2067", "' onmouseover='alert(1)", "<svg onload=alert(1)>"];
const long = ["هذا نص طويل يكتب من اليمين إلى اليسار (مع أقواس) و English داخله. ", "यह एक लंबा वाक्य है जिसमें क्ष, ज्ञ और श्र आते हैं। ",
  "ประโยคภาษาไทยที่ยาวมากไม่มีช่องว่างระหว่างคำเลย", "ဤစာကြောင်းသည် ရှည်လျားသော မြန်မာစာ ဖြစ်သည်။ ", "یہ ایک لمبا اردو جملہ ہے۔ ", "wort".repeat(30), "z\u0300\u0301\u0302\u0303\u0489 "];
const row = (text, at) => ({ inputs: `${at}: ${text}`, targets: text.repeat(40), language: at % 2 ? `Odd <b>${text.slice(0, 20)}</b>` : "Urdu",
  language_code: at % 2 ? "xx\" onload=\"x" : "urd", annotation_type: "original-annotations" });
const rows = [...harm, ...long].map((text, at) => JSON.stringify(row(text, at)));
writeFileSync(process.argv[3], readFileSync(process.argv[2], "utf8") + rows.join("\n") + "\n");
END
toy="$folder/demo/demo/model"
"$program" make --prompts "$folder/prompts.jsonl" --generator "$toy" --judge "$toy" --max-tokens 40 --out "$folder/harm" --quiet 2>/dev/null
# On demand pages also say how fast it was.
for name in demo harm; do "$program" report "$folder/$name" --out "$folder/$name.html" 2>/dev/null; done
"$program" languages --local "$folder/demo" --html "$folder/languages.html" 2>/dev/null

# A bench of two models of no use over two languages, one of them with hostile rows.
"$program" bench --languages urd,nld --models "$toy,tests/fixtures/models/llama" --judge "$toy" --prompts "$folder/prompts.jsonl" --n 8 --max-tokens 40 \
    --known-answers 2 --out "$folder/bench" --quiet 2>/dev/null
mv "$folder/bench/report.html" "$folder/bench.html"

sealed=()
if unshare --net true 2>/dev/null; then sealed=(unshare --net); fi
"${sealed[@]}" node scripts/check_pages.mjs "$@" "$folder/demo.html" "$folder/harm.html" "$folder/bench.html" "$folder/languages.html"
