//! The frame of every page: head, language links, footer.

use form_urlencoded::byte_serialize;
use maud::{DOCTYPE, Markup, html};

use crate::assets::Assets;
use crate::language::Language;
use crate::texts::Texts;

/// What differs in the frame of two pages.
pub(super) struct Document<'a> {
    pub texts: &'static Texts,
    /// `data-page`, by which the script knows the page.
    pub page: &'static str,
    pub title: &'a str,
    /// Whether the page reports faults, which its title begins with.
    pub has_faults: bool,
    /// The page's path, for its language links.
    pub path: &'a str,
    /// The rest of the query of the language links.
    pub query: &'a str,
    /// The canonical address, where it is not the path.
    pub canonical: Option<&'a str>,
    /// The service's own address, on pages that others share. Never taken from a request.
    pub public_url: Option<&'a str>,
    /// The data of the page's script; without it the page has no script.
    pub data: Option<Markup>,
    /// What the skip link leads to, and its text.
    pub skip: (&'a str, &'a str),
}

impl Document<'_> {
    /// Renders the page around its main content.
    pub fn render(&self, main: &Markup) -> String {
        let (texts, assets) = (self.texts, Assets::embedded());
        let language = texts.language();
        let folder = assets.folder();
        let (skip_to, skip_text) = self.skip;
        let page = html! {
            (DOCTYPE)
            html lang=(language.tag()) dir=(language.direction()) {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title()) }
                    @if let Some(canonical) = self.canonical {
                        link rel="canonical" href={ (self.public_url.unwrap_or_default()) (canonical) };
                        (self.sharing(canonical))
                    }
                    link rel="stylesheet" href={ (folder) "page.css" };
                    @if assets.get("icon.svg").is_some() {
                        link rel="icon" href={ (folder) "icon.svg" } type="image/svg+xml";
                    }
                    @if self.data.is_some() {
                        @for module in assets.modules() {
                            link rel="modulepreload" href={ (folder) (module.name) };
                        }
                        script type="module" src={ (folder) "page.js" } {}
                    }
                }
                body data-page=(self.page) {
                    @if let Some(data) = &self.data { (data) }
                    a class="skip" href=(skip_to) { (skip_text) }
                    header class="site" { (self.languages()) }
                    main { (main) }
                    (self.footer())
                }
            }
        };
        page.into_string()
    }

    /// Describes the page for services that show links to it. No number of the results is in it.
    fn sharing(&self, canonical: &str) -> Markup {
        let Some(public_url) = self.public_url else { return html! {} };
        let address = format!("{public_url}{canonical}");
        let encoded: String = byte_serialize(address.as_bytes()).collect();
        let title = without_direction_marks(self.title);
        html! {
            link rel="alternate" type="application/json+oembed" title=(title)
                href={ (public_url) "/oembed?url=" (encoded) };
            meta property="og:type" content="website";
            meta property="og:title" content=(title);
            meta property="og:url" content=(address);
            meta property="og:locale" content=(self.texts.language().tag());
        }
    }

    fn title(&self) -> String {
        let title = without_direction_marks(self.title);
        match self.has_faults {
            true => self.texts.format("title_error", &[("title", &title)]),
            false => title,
        }
    }

    fn languages(&self) -> Markup {
        let current = self.texts.language();
        html! {
            nav class="languages" aria-label=(self.texts.text("languages")) {
                @for language in Language::ALL {
                    @let here = (language == current).then_some("true");
                    a href=(self.in_language(language)) hreflang=(language.tag()) lang=(language.tag())
                        dir=(language.direction()) aria-current=[here] { (language.name()) }
                    " "
                }
            }
        }
    }

    fn in_language(&self, language: Language) -> String {
        match self.query {
            "" => link(self.path, language),
            query => format!("{}&{query}", link(self.path, language)),
        }
    }

    fn footer(&self) -> Markup {
        let texts = self.texts;
        html! {
            footer class="site" {
                details id="help" {
                    summary { (texts.text("help")) }
                    p { (texts.text("help_fields")) }
                    p { (texts.text("help_tools")) }
                    p { (texts.text("help_rounding")) }
                }
                details id="how-counted" {
                    summary { (texts.text("how_counted")) }
                    p { (texts.text("how_counted_person")) }
                    p { (texts.text("how_counted_average")) }
                    p { (texts.text("how_counted_proof")) }
                }
                details id="privacy" {
                    summary { (texts.text("privacy")) }
                    p { (texts.text("privacy_cookie")) }
                    p { (texts.text("privacy_stored")) }
                }
                p { a href=(link("/budgets", texts.language())) { (texts.text("all_budgets")) } }
            }
        }
    }
}

/// Builds an address on this service that keeps the language.
pub(super) fn link(path: &str, language: Language) -> String {
    format!("{path}?lang={}", language.tag())
}

/// Removes the marks that would change the direction of the text around a name, where markup cannot isolate it.
pub(super) fn without_direction_marks(text: &str) -> String {
    text.chars()
        .filter(|mark| !matches!(mark, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
        .collect()
}
