//! Templates that are wrong or mean harm: each gives one clear error with its file, and its line where there is one. None hangs,
//! panics, overflows the stack or fills the memory.

use pairwright::prompt::{ChatTokenizer, DialogueEnd, Message, PromptError, TemplateOptions, TemplateSource};

const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}}"#;

fn error_of(source: &str) -> PromptError {
    let mut options = TemplateOptions::new("2026-03-07".parse().unwrap());
    options.chat_template_override =
        Some(TemplateSource { source: source.to_owned(), origin: "hostile.jinja".to_owned() });
    let turn = Message { role: "user".to_owned(), content: "लंबा पाठ ".repeat(50) };
    let result = ChatTokenizer::from_parts(TOKENIZER.as_bytes(), None, None, &options)
        .and_then(|tokenizer| tokenizer.render_chat(&[turn], DialogueEnd::GenerationPrompt));
    result.expect_err(&source.chars().take(200).collect::<String>())
}

#[test]
fn wrong_templates_name_file_and_line() {
    for (source, line, what) in [
        ("a\n{% if %}", 2, "syntax error"),
        ("{% if a %}\nb", 2, "syntax error"),
        ("\n\n{{ 'a' | nofilter }}", 3, "nofilter"),
        ("\n{{ messages.a.b }}", 2, "undefined"),
        ("\n{{ messages[0].content + 1 }}", 2, "unsupported types"),
        ("a\n{% for x in tools %}{% endfor %}", 2, "not iterable"),
        ("{{ 'a' }}\r\n{% generation %}\r\n{{ x", 3, "syntax error"),
        ("\n{{ raise_exception('No thank you.') }}", 2, "No thank you."),
        ("\n{{ undefinedthing | tojson }}", 2, "cannot be written as JSON"),
    ] {
        let text = error_of(source).to_string();
        assert!(text.starts_with(&format!("the chat template (hostile.jinja, line {line}): ")), "{source}: {text}");
        assert!(text.contains(what) && text.contains("\nhint: "), "{source}: {text}");
    }
}

#[test]
fn templates_without_end_are_stopped() {
    let doubled =
        "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    for source in [
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ i * j }}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ messages[0].content * 99 }}{% endfor %}",
        doubled,
        "{{ 'x' * 99999999999 }}",
        "{{ [1] * 9999999999 }}",
    ] {
        let text = error_of(source).to_string();
        assert!(text.contains("does not come to an end") || text.contains("too"), "{source}: {text}");
    }
}

#[test]
fn templates_that_grow_without_bound_are_refused() {
    let shared = "{% set ns = namespace(x=[1]) %}{% for i in range(70) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    let nested = "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    let long =
        "{% set ns = namespace(x='ab') %}{% for i in range(40) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}";
    let sources = [
        format!("{shared}{{{{ ns.x }}}}"),
        format!("{shared}{{{{ ns.x | tojson }}}}"),
        format!("{shared}{{{{ ns.x | string }}}}"),
        format!("{nested}{{{{ ns.x }}}}"),
        format!("{nested}{{{{ ns.x | tojson(indent=2) }}}}"),
        format!("{nested}{{{{ ns.x ~ 'a' }}}}{{{{ raise_exception('end') }}}}"),
        format!("{nested}{{{{ ns.x == [ns.x] }}}}{{{{ raise_exception('end') }}}}"),
        long.to_owned(),
        "{{ 'a'.center(9999999999) }}".to_owned(),
        "{{ 'a\t'.expandtabs(9999999999) }}".to_owned(),
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned(),
        "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}".to_owned(),
        format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("{}x{}", "{% if a %}".repeat(20_000), "{% endif %}".repeat(20_000)),
        format!("{{{{ {}1 }}}}{{{{ raise_exception('end') }}}}", "not ".repeat(100_000)),
        format!("{{{{ a{} }}}}", ".b".repeat(100_000)),
        format!("{{{{ a{} }}}}{{{{ raise_exception('end') }}}}", " | upper".repeat(100_000)),
        format!("{{{{ 1{} }}}}{{{{ raise_exception('end') }}}}", " + 1".repeat(100_000)),
    ];
    for source in sources {
        let text = error_of(&source).to_string();
        assert!(text.starts_with("the chat template (hostile.jinja"), "{text}");
        assert!(text.len() < 1000, "{} bytes: {}", text.len(), text.chars().take(300).collect::<String>());
    }
}
