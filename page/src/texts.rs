//! The texts of the pages in each language: `texts/{language}/page.json`, flat keys and `{name}` placeholders.

use std::collections::HashMap;
use std::sync::LazyLock;

use maud::{Markup, PreEscaped, Render};

use crate::language::Language;
use crate::number::NumberFormat;

/// The texts of one language.
#[derive(Debug)]
pub struct Texts {
    language: Language,
    texts: HashMap<String, String>,
    numbers: NumberFormat,
    script: &'static str,
}

static ALL: LazyLock<[Texts; 6]> = LazyLock::new(|| {
    macro_rules! read {
        ($language:ident, $tag:literal) => {
            Texts::read(
                Language::$language,
                include_str!(concat!("../texts/", $tag, "/page.json")),
                include_str!(concat!("../texts/", $tag, "/script.json")),
            )
        };
    }
    [
        read!(En, "en"),
        read!(De, "de"),
        read!(Fr, "fr"),
        read!(Es, "es"),
        read!(Pl, "pl"),
        read!(Ar, "ar"),
    ]
});

impl Texts {
    /// Returns the texts of a language.
    pub fn of(language: Language) -> &'static Self {
        let [english, others @ ..] = &*ALL;
        others.iter().find(|texts| texts.language == language).unwrap_or(english)
    }

    /// Reads embedded files. A test rules out that they do not parse.
    fn read(language: Language, page: &str, script: &'static str) -> Self {
        let texts: HashMap<String, String> = serde_json::from_str(page).unwrap_or_default();
        let text = |key: &str| texts.get(key).cloned().unwrap_or_default();
        let numbers = NumberFormat {
            decimal: text("number.decimal"),
            group: text("number.group"),
            minimum_grouping: text("number.minimum_grouping").parse().unwrap_or(1),
        };
        Self { language, texts, numbers, script }
    }

    /// The language.
    pub fn language(&self) -> Language {
        self.language
    }

    /// How the language writes numbers.
    pub fn numbers(&self) -> &NumberFormat {
        &self.numbers
    }

    /// The JSON object with the texts of the page's script.
    pub fn script(&self) -> &'static str {
        self.script
    }

    /// Returns a text. A test rules out that a key of the code is missing.
    pub fn text(&self, key: &str) -> &str {
        self.texts.get(key).map_or("", String::as_str)
    }

    /// Fills the placeholders of a text.
    pub fn format(&self, key: &str, values: &[(&str, &str)]) -> String {
        let mut out = String::new();
        pieces(self.text(key), |piece| match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Placeholder(name) => {
                out.push_str(find(values, name).copied().unwrap_or_default())
            }
        });
        out
    }

    /// Fills the placeholders of a text with markup; the text itself is escaped.
    pub fn markup(&self, key: &str, values: &[(&str, Markup)]) -> Markup {
        let mut out = String::new();
        pieces(self.text(key), |piece| match piece {
            Piece::Literal(text) => text.render_to(&mut out),
            Piece::Placeholder(name) => {
                out.push_str(find(values, name).map_or("", |markup| markup.0.as_str()));
            }
        });
        PreEscaped(out)
    }
}

fn find<'a, T>(values: &'a [(&str, T)], name: &str) -> Option<&'a T> {
    values.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

enum Piece<'a> {
    Literal(&'a str),
    Placeholder(&'a str),
}

/// Splits a text at its placeholders.
fn pieces<'a>(text: &'a str, mut each: impl FnMut(Piece<'a>)) {
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        each(Piece::Literal(literal));
        each(Piece::Placeholder(name));
        rest = after;
    }
    each(Piece::Literal(rest));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use maud::html;

    use super::*;

    fn placeholders(text: &str) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        pieces(text, |piece| {
            if let Piece::Placeholder(name) = piece {
                names.insert(name);
            }
        });
        names
    }

    #[test]
    fn all_languages_have_the_same_keys_and_placeholders() {
        let english = Texts::of(Language::En);
        assert!(english.texts.len() > 50);
        for language in Language::ALL {
            let texts = Texts::of(language);
            assert_eq!(texts.language(), language);
            assert!(
                serde_json::from_str::<HashMap<String, String>>(texts.script()).is_ok(),
                "{language:?}"
            );
            let keys = |texts: &Texts| texts.texts.keys().cloned().collect::<BTreeSet<_>>();
            let different: Vec<_> =
                keys(english).symmetric_difference(&keys(texts)).cloned().collect();
            assert_eq!(different, Vec::<String>::new(), "{language:?}");
            for (key, text) in &english.texts {
                let translated = texts.text(key);
                assert!(!translated.is_empty(), "{language:?} {key}");
                assert_eq!(placeholders(text), placeholders(translated), "{language:?} {key}");
            }
        }
    }

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn the_code_uses_every_key_and_no_other() {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let mut used = BTreeSet::new();
        for file in files {
            let source = fs::read_to_string(file).unwrap();
            let source = source.split("#[cfg(test)]").next().unwrap();
            for call in [".text(", ".format(", ".markup("] {
                for (at, _) in source.match_indices(call) {
                    let argument = source[at + call.len()..].trim_start();
                    if let Some((key, _)) =
                        argument.strip_prefix('"').and_then(|text| text.split_once('"'))
                    {
                        used.insert(key.to_owned());
                    }
                }
            }
        }
        let known: BTreeSet<String> = Texts::of(Language::En).texts.keys().cloned().collect();
        let missing: Vec<_> = used.difference(&known).collect();
        assert_eq!(missing, Vec::<&String>::new());
        // The number format is read with the file.
        let unused: Vec<_> =
            known.difference(&used).filter(|key| !key.starts_with("number.")).collect();
        assert_eq!(unused, Vec::<&String>::new());
    }

    #[test]
    fn literal_text_is_escaped_and_markup_is_not() {
        let texts = Texts {
            language: Language::En,
            texts: HashMap::from([("k".to_owned(), "<{a}> & {b}".to_owned())]),
            numbers: Texts::of(Language::En).numbers().clone(),
            script: "{}",
        };
        assert_eq!(
            texts.markup("k", &[("a", html! { b { "<" } })]).0,
            "&lt;<b>&lt;</b>&gt; &amp; "
        );
        assert_eq!(texts.format("k", &[("a", "x"), ("b", "{a}")]), "<x> & {a}");
    }
}
