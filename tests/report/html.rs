//! A strict reader of the report's page: it knows the few tags and attributes that the templates use, and takes nothing else.
//! Knows HTML's letters, not what a browser makes of them.

const TAGS: [&str; 50] = [
    "label",
    "input",
    "fieldset",
    "legend",
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "header",
    "footer",
    "section",
    "article",
    "figure",
    "figcaption",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "p",
    "a",
    "b",
    "strong",
    "code",
    "bdi",
    "span",
    "div",
    "ul",
    "li",
    "dl",
    "dt",
    "dd",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "details",
    "summary",
    "svg",
    "rect",
    "path",
    "text",
    "doctype",
    "br",
    "em",
];
const ATTRIBUTES: [&str; 31] = [
    "type",
    "checked",
    "data-label",
    "lang",
    "dir",
    "charset",
    "http-equiv",
    "content",
    "name",
    "class",
    "id",
    "href",
    "style",
    "role",
    "scope",
    "tabindex",
    "aria-label",
    "aria-labelledby",
    "aria-hidden",
    "viewBox",
    "x",
    "y",
    "width",
    "height",
    "d",
    "fill-opacity",
    "html",
    "open",
    "hidden",
    "colspan",
    "title",
];

/// What is left of a page: its texts one after the other, entities decoded, without the style.
pub fn texts_of(page: &str) -> Result<String, String> {
    let mut texts = String::new();
    let mut open: Vec<String> = Vec::new();
    let mut rest = page;
    while let Some((text, behind)) = rest.split_once('<') {
        if open.last().is_some_and(|tag| tag == "style") {
            let (style, after) = rest.split_once("</style>").ok_or("the style has no end")?;
            for word in ["url(", "@import", "expression(", "<", "://"] {
                if style.contains(word) {
                    return Err(format!("the style says {word}"));
                }
            }
            open.pop();
            rest = after;
            continue;
        }
        texts += &decoded(text)?;
        let (tag, after) = tag_of(behind)?;
        rest = after;
        match tag.strip_prefix('/') {
            Some(name) if open.last().is_some_and(|top| top == name) => _ = open.pop(),
            Some(name) => return Err(format!("</{name}> closes {:?}", open.last())),
            None if ["meta", "input", "!doctype"].contains(&tag.as_str()) || tag.ends_with('/') => {}
            None => open.push(tag),
        }
    }
    texts += &decoded(rest)?;
    if open.is_empty() { Ok(texts) } else { Err(format!("left open: {open:?}")) }
}

/// The tag's name (with `/` before or behind it) and what stands behind the tag.
fn tag_of(behind: &str) -> Result<(String, &str), String> {
    let end =
        behind.find(|c: char| !(c.is_ascii_alphanumeric() || c == '/' || c == '!')).ok_or("a tag without an end")?;
    let (name, mut rest) = behind.split_at(end);
    let plain = name.trim_matches(['/', '!']);
    if !TAGS.contains(&plain) {
        return Err(format!("<{name} is no tag of ours, before {:.60}", rest));
    }
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix("/>") {
            return Ok((format!("{name}/"), after));
        }
        if let Some(after) = rest.strip_prefix('>') {
            return Ok((name.to_owned(), after));
        }
        if let Some(after) = rest.strip_prefix("html") {
            rest = after; // of the doctype
            continue;
        }
        let (attribute, value) = rest.split_once("=\"").ok_or_else(|| format!("no attribute: {rest:.60}"))?;
        let (value, after) = value.split_once('"').ok_or("an attribute without an end")?;
        if !ATTRIBUTES.contains(&attribute) {
            return Err(format!("<{name} has {attribute}"));
        }
        let value = decoded(value)?;
        let is_outside = attribute == "href" && !value.starts_with('#');
        let is_strange =
            attribute == "style" && !value.chars().all(|c| c.is_ascii_alphanumeric() || ":;%.-".contains(c));
        if is_outside || is_strange || value.contains("javascript:") {
            return Err(format!("{attribute}={value}"));
        }
        rest = after;
    }
}

/// Text with its entities, which must be those that escaping makes, and without characters that a page must not hold.
fn decoded(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        plain += before;
        let (entity, after) = behind.split_once(';').ok_or_else(|| format!("a bare &: {behind:.40}"))?;
        plain += match entity {
            "#60" | "lt" => "<",
            "#62" | "gt" => ">",
            "#38" | "amp" => "&",
            "#34" | "quot" => "\"",
            "#39" => "'",
            other => return Err(format!("&{other};")),
        };
        rest = after;
    }
    plain += rest;
    let is_bad = |c: &char| c.is_control() && !['\n', '\t'].contains(c) || ('\u{202A}'..='\u{202E}').contains(c);
    match (plain.chars().find(is_bad), rest.contains('>')) {
        (Some(bad), _) => Err(format!("{bad:?} stands on the page")),
        (None, true) => Err(format!("a bare >: {rest:.60}")),
        (None, false) => Ok(plain),
    }
}

#[test]
fn what_is_not_ours_is_found() {
    assert_eq!(texts_of("<p class=\"a\">1 &#60; 2</p>").as_deref(), Ok("1 < 2"));
    for bad in [
        "<script>x</script>",
        "<p onclick=\"x\">a</p>",
        "<a href=\"https://a.b\">a</a>",
        "<p>a & b</p>",
        "<p>a > b</p>",
        "<p>\u{0}</p>",
        "<p>\u{202E}</p>",
        "<p><b>a</p></b>",
        "<p>a",
        "<style>a{b:url(c)}</style>",
        "<p style=\"b:url(c)\">a</p>",
    ] {
        assert!(texts_of(bad).is_err(), "{bad}");
    }
}
