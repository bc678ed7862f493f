//! A project's guidelines: Markdown to HTML that can do nothing. Markup in the file is shown as text, pictures become their description,
//! links lead to web pages, mail or the page itself. The only place where text becomes HTML, and it is the project's own, never a vote's or
//! an answer's. Knows Markdown; knows nothing of pages.

use pulldown_cmark::{CowStr, Event, LinkType, Options, Parser, Tag, TagEnd, html};

/// Key, among the texts of the pages, of what is shown where a project has no guidelines of its own.
pub const DEFAULT_KEY: &str = "guidelines_text";

/// The HTML of a Markdown text.
pub fn to_html(markdown: &str) -> String {
    let events = Parser::new_ext(markdown, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH);
    let harmless = events.filter_map(|event| {
        Some(match event {
            Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
            Event::Start(Tag::HtmlBlock) => Event::Start(Tag::Paragraph),
            Event::End(TagEnd::HtmlBlock) => Event::End(TagEnd::Paragraph),
            // The description between the two stays.
            Event::Start(Tag::Image { .. }) | Event::End(TagEnd::Image) => return None,
            Event::Start(Tag::Link { link_type, dest_url, .. }) => Event::Start(Tag::Link {
                link_type,
                dest_url: if is_safe(&dest_url, link_type) { dest_url } else { CowStr::Borrowed("#") },
                title: CowStr::Borrowed(""),
                id: CowStr::Borrowed(""),
            }),
            other => other,
        })
    });
    let mut out = String::new();
    html::push_html(&mut out, harmless);
    out
}

fn is_safe(url: &str, kind: LinkType) -> bool {
    let lower = url.to_ascii_lowercase();
    kind == LinkType::Email || ["https://", "http://", "mailto:", "#"].iter().any(|scheme| lower.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_is_rendered_and_markup_is_shown() {
        let html =
            to_html("# Title\n\n**bold** <b onclick=x>y</b> ![a cat](http://x/y.png)\n\n<script>alert(1)</script>\n");
        assert!(html.contains("<h1>Title</h1>") && html.contains("<strong>bold</strong>"), "{html}");
        assert!(
            html.contains("&lt;script&gt;") && html.contains("&lt;b onclick=x&gt;") && html.contains("a cat"),
            "{html}"
        );
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("<b "), "{html}");
    }

    #[test]
    fn links_lead_to_web_pages_alone() {
        let html = to_html(
            "[a](https://example.org) [b](javascript:alert(1)) [c](JaVaScRiPt:x) [d](data:text/html,x) [e](#top)",
        );
        assert!(html.contains("https://example.org") && html.contains("\"#top\""));
        assert!(!html.to_lowercase().contains("javascript") && !html.contains("data:"), "{html}");
        assert!(!to_html("[x](https://a \"t\\\" onload=y\")").contains("onload"));
    }
}
