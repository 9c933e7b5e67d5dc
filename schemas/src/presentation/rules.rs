//! What an administrator may write into a presentation.

use std::sync::LazyLock;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::{Presentation, Reference, Translation};
use crate::{BASIS_POINTS_PER_PERSON, Category};

/// Maximum length of a budget's or category's name, in characters.
pub const NAME_MAX_CHARS: usize = 200;
/// Maximum length of a description, in characters.
const DESCRIPTION_MAX_CHARS: usize = 2_000;
/// Maximum length of a reference's source, and of a contact, in characters.
const LINE_MAX_CHARS: usize = 500;
/// Maximum number of translations.
pub const MAX_TRANSLATIONS: usize = 32;

/// Returns the time zone of an IANA name, such as `Europe/Berlin`.
///
/// From the database in the program: every process knows the same names, whatever its machine has.
pub fn time_zone(name: &str) -> Option<TimeZone> {
    static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
    // The database ignores case; browsers and other readers may not.
    ZONES.get(name).ok().filter(|zone| zone.iana_name() == Some(name))
}

/// Reports every fault of a presentation, with its JSON pointer.
pub(crate) fn presentation_faults(
    presentation: &Presentation,
    categories: &[Category],
    fault: &mut dyn FnMut(String, String),
) {
    let Presentation { description, language, translations, time_zone: zone, .. } = presentation;
    let Presentation { reference, contact, .. } = presentation;
    if let Some(detail) = description.as_deref().and_then(description_fault) {
        fault("/description".into(), detail);
    }
    if let Some(detail) = language.as_deref().and_then(language_fault) {
        fault("/language".into(), detail);
    }
    if language.is_none() && !translations.is_empty() {
        fault("/language".into(), "is needed beside `translations`".into());
    }
    if zone.as_deref().is_some_and(|name| time_zone(name).is_none()) {
        fault("/time_zone".into(), "must be an IANA time zone, such as `Europe/Berlin`".into());
    }
    if let Some(detail) = contact.as_deref().and_then(line_fault) {
        fault("/contact".into(), detail);
    }
    if let Some(reference) = reference {
        reference_faults(reference, categories, fault);
    }
    if translations.len() > MAX_TRANSLATIONS {
        fault("/translations".into(), format!("must be at most {MAX_TRANSLATIONS}"));
    }
    for (tag, translation) in translations.iter().take(MAX_TRANSLATIONS) {
        let pointer = format!("/translations/{}", escaped(tag));
        if let Some(detail) = language_fault(tag) {
            fault(pointer, detail);
        } else if language.as_ref() == Some(tag) {
            fault(pointer, "is the language of the definition itself".into());
        } else {
            translation_faults(translation, &pointer, presentation, categories, fault);
        }
    }
}

fn reference_faults(
    reference: &Reference,
    categories: &[Category],
    fault: &mut dyn FnMut(String, String),
) {
    if let Some(detail) = name_fault(&reference.name) {
        fault("/reference/name".into(), detail);
    }
    if let Some(detail) = line_fault(&reference.source) {
        fault("/reference/source".into(), detail);
    }
    for id in reference.percent.keys().filter(|id| categories.iter().all(|it| it.id != **id)) {
        fault(format!("/reference/percent/{id}"), "is no category of the budget".into());
    }
    let sum: u64 = reference.percent.values().map(|share| u64::from(share.basis_points())).sum();
    if sum != BASIS_POINTS_PER_PERSON {
        let (percent, hundredths) = (sum / 100, sum % 100);
        fault(
            "/reference/percent".into(),
            format!("must add up to exactly 100, not {percent}.{hundredths:02}"),
        );
    }
}

fn translation_faults(
    translation: &Translation,
    pointer: &str,
    presentation: &Presentation,
    categories: &[Category],
    fault: &mut dyn FnMut(String, String),
) {
    let mut check = |pointer: String, detail: Option<String>| {
        if let Some(detail) = detail {
            fault(pointer, detail);
        }
    };
    check(format!("{pointer}/name"), translation.name.as_deref().and_then(name_fault));
    let description = translation.description.as_deref();
    check(format!("{pointer}/description"), description.and_then(description_fault));
    if let Some(reference) = &translation.reference {
        let missing = presentation.reference.is_none();
        let detail = missing.then(|| "the definition has no reference".to_owned());
        check(format!("{pointer}/reference"), detail);
        let (name, source) = (reference.name.as_deref(), reference.source.as_deref());
        check(format!("{pointer}/reference/name"), name.and_then(name_fault));
        check(format!("{pointer}/reference/source"), source.and_then(line_fault));
    }
    for (id, texts) in &translation.categories {
        let pointer = format!("{pointer}/categories/{id}");
        if categories.iter().all(|category| category.id != *id) {
            check(pointer, Some("is no category of the budget".to_owned()));
            continue;
        }
        check(format!("{pointer}/name"), texts.name.as_deref().and_then(name_fault));
        let description = texts.description.as_deref();
        check(format!("{pointer}/description"), description.and_then(description_fault));
    }
}

/// Returns what is wrong with a name, if anything is.
pub(crate) fn name_fault(name: &str) -> Option<String> {
    text_fault(name, NAME_MAX_CHARS)
}

/// Returns what is wrong with a text of one line, if anything is.
fn line_fault(text: &str) -> Option<String> {
    text_fault(text, LINE_MAX_CHARS)
}

/// Returns what is wrong with a description, if anything is. It may have line breaks, and may be empty.
pub(crate) fn description_fault(text: &str) -> Option<String> {
    if text.chars().count() > DESCRIPTION_MAX_CHARS {
        return Some(format!("must have at most {DESCRIPTION_MAX_CHARS} characters"));
    }
    text.chars()
        .any(|mark| mark.is_control() && mark != '\n')
        .then(|| "must not have control characters other than line feeds".to_owned())
}

fn text_fault(text: &str, max_chars: usize) -> Option<String> {
    if !(1..=max_chars).contains(&text.chars().count()) {
        return Some(format!("must have 1 to {max_chars} characters"));
    }
    if text.chars().any(char::is_control) {
        return Some("must not have control characters, such as line breaks".to_owned());
    }
    let is_invisible = |mark: char| {
        mark.is_whitespace() || matches!(mark, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
    };
    text.chars().all(is_invisible).then(|| "must not be blank".to_owned())
}

/// Returns what is wrong with a language, if anything is: it must be a BCP 47 tag of language, script and region, in
/// the usual case.
fn language_fault(tag: &str) -> Option<String> {
    let is_letters = |text: &str, lengths: &[usize], is_letter: fn(&u8) -> bool| {
        lengths.contains(&text.len()) && text.as_bytes().iter().all(is_letter)
    };
    let is_script = |text: &str| {
        let (first, rest) = text.split_at_checked(1).unwrap_or_default();
        is_letters(first, &[1], u8::is_ascii_uppercase)
            && is_letters(rest, &[3], u8::is_ascii_lowercase)
    };
    let is_region = |text: &str| {
        is_letters(text, &[2], u8::is_ascii_uppercase) || is_letters(text, &[3], u8::is_ascii_digit)
    };
    let mut subtags = tag.split('-').peekable();
    let is_language =
        subtags.next().is_some_and(|text| is_letters(text, &[2, 3], u8::is_ascii_lowercase));
    subtags.next_if(|text| is_script(text));
    subtags.next_if(|text| is_region(text));
    let is_tag = is_language && subtags.next().is_none();
    (!is_tag).then(|| "must be a BCP 47 language, such as `de`, `pt-BR` or `zh-Hant`".to_owned())
}

/// Escapes a member's name for a JSON pointer; a name that is too long for a language is cut.
fn escaped(name: &str) -> String {
    let name: String = name.chars().take(NAME_MAX_CHARS).collect();
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_tags_of_language_script_and_region() {
        for tag in ["de", "gsw", "pt-BR", "zh-Hant", "sr-Latn-RS", "es-419"] {
            assert_eq!(language_fault(tag), None, "{tag}");
        }
        for tag in [
            "",
            "d",
            "DE",
            "german",
            "de-at",
            "de_AT",
            "de-",
            "-de",
            "zh-hant",
            "de-AT-Latn",
            "de-AT-x",
            "dé",
            "de-\u{e4}bcd",
            "x-a",
        ] {
            assert!(language_fault(tag).is_some(), "{tag}");
        }
    }

    #[test]
    fn time_zones_are_known_by_their_iana_name_alone() {
        for name in ["Europe/Berlin", "Asia/Kathmandu", "UTC", "America/Argentina/Buenos_Aires"] {
            assert!(time_zone(name).is_some(), "{name}");
        }
        for name in ["europe/berlin", "Europe/Nowhere", "CEST", "+02:00", "../etc/passwd", ""] {
            assert!(time_zone(name).is_none(), "{name}");
        }
    }

    #[test]
    fn descriptions_may_have_lines_and_names_may_not() {
        assert_eq!(description_fault("One.\n\nTwo."), None);
        assert_eq!(name_fault("One"), None);
        for text in ["a\tb", "a\u{1b}[31m", "a\r\nb", "a\u{85}"] {
            assert!(description_fault(text).is_some() && name_fault(text).is_some(), "{text:?}");
        }
        assert!(name_fault("One\nTwo").is_some() && name_fault(" \u{200b}").is_some());
        assert!(description_fault(&"x".repeat(2_001)).is_some());
    }
}
