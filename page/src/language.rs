//! The languages of the pages, and the choice among them.

/// A language that the pages are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// English, where no other language is asked for.
    En,
    /// German.
    De,
    /// French.
    Fr,
    /// Spanish.
    Es,
    /// Polish.
    Pl,
    /// Arabic, written from right to left.
    Ar,
}

impl Language {
    /// All languages, in the order of the language links.
    pub const ALL: [Self; 6] = [Self::En, Self::De, Self::Fr, Self::Es, Self::Pl, Self::Ar];

    /// The language's tag, for `lang` and `hreflang`.
    pub fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
            Self::Fr => "fr",
            Self::Es => "es",
            Self::Pl => "pl",
            Self::Ar => "ar",
        }
    }

    /// The language's own name.
    pub fn name(self) -> &'static str {
        match self {
            Self::En => "English",
            Self::De => "Deutsch",
            Self::Fr => "Français",
            Self::Es => "Español",
            Self::Pl => "Polski",
            Self::Ar => "العربية",
        }
    }

    /// The direction of the script, for `dir`.
    pub fn direction(self) -> &'static str {
        match self {
            Self::Ar => "rtl",
            _ => "ltr",
        }
    }

    /// Returns the language of a tag such as `de` or `de-AT`.
    pub fn of_tag(tag: &str) -> Option<Self> {
        let primary = tag.split('-').next().unwrap_or_default();
        Self::ALL.into_iter().find(|language| language.tag().eq_ignore_ascii_case(primary))
    }

    /// Chooses the language: `?lang=`, then `Accept-Language`, then English.
    pub fn choose(parameter: Option<&str>, accept_language: Option<&str>) -> Self {
        parameter
            .and_then(Self::of_tag)
            .or_else(|| Self::preferred(accept_language?))
            .unwrap_or(Self::En)
    }

    /// Returns the first language of the highest weight in `Accept-Language` (RFC 9110, 12.5.4).
    fn preferred(accept_language: &str) -> Option<Self> {
        let mut best: Option<(Self, u16)> = None;
        for range in accept_language.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let language = parts.next().and_then(Self::of_tag);
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1_000, thousandths);
            if let Some(language) = language
                && weight > best.map_or(0, |(_, weight)| weight)
            {
                best = Some((language, weight));
            }
        }
        best.map(|(language, _)| language)
    }
}

/// Parses a weight from 0 to 1; a malformed one is 0.
fn thousandths(weight: &str) -> u16 {
    match weight.parse::<f32>() {
        // From 0 to 1,000.
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1_000.0) as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_chosen_before_the_header_and_the_header_by_weight() {
        let choose = |parameter, header| Language::choose(parameter, header);
        assert_eq!(choose(Some("pl"), Some("de")), Language::Pl);
        assert_eq!(choose(Some("xx"), Some("de-AT,en;q=0.5")), Language::De);
        assert_eq!(choose(None, Some("it, fr;q=0.5, es;q=0.9")), Language::Es);
        assert_eq!(choose(None, Some("ar;q=0, DE;q=0.1")), Language::De);
        assert_eq!(choose(None, Some("it;q=x, *")), Language::En);
        assert_eq!(choose(None, None), Language::En);
    }
}
