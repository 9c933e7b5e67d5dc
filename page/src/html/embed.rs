//! The results of a budget in a frame on another site, and the code that puts them there.
//!
//! The frame has no form. In a frame of another site a browser sends no cookie of the person, or another one than on
//! the service's own pages. So people take part on the service's own pages.

use maud::{DOCTYPE, Markup, html};
use schemas::Openness;

use super::document::{link, without_direction_marks};
use super::heading::heading;
use super::page_data::page_data;
use super::results::results;
use crate::assets::Assets;
use crate::language::Language;
use crate::texts::Texts;
use crate::view::{BudgetView, Results};

/// Replaced by the page's script if the server does not know its own address.
const UNKNOWN_ORIGIN: &str = "https://this.invalid";

/// The colours of an embed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Theme {
    /// As the reader's device has it.
    #[default]
    OfDevice,
    /// Dark text on light ground.
    Light,
    /// Light text on dark ground.
    Dark,
}

impl Theme {
    /// Reads `?theme=`; any other text is as none.
    pub fn parse(text: &str) -> Self {
        match text {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::OfDevice,
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Self::OfDevice => None,
            Self::Light => Some("light"),
            Self::Dark => Some("dark"),
        }
    }
}

/// Renders a budget's results for a frame.
pub fn embed_page(
    texts: &'static Texts,
    budget: &BudgetView,
    shown: &Results,
    theme: Theme,
) -> String {
    let assets = Assets::embedded();
    let folder = assets.folder();
    let language = texts.language();
    let in_new_tab = |path: &str, class: &str, text: &str| {
        html! {
            p class=(class) { a href=(link(path, language)) target="_blank" rel="noopener" { (text) } }
        }
    };
    let page = html! {
        (DOCTYPE)
        html lang=(language.tag()) dir=(language.direction()) data-theme=[theme.name()] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (without_direction_marks(&budget.name.text)) }
                link rel="stylesheet" href={ (folder) "page.css" };
                script type="module" src={ (folder) "page.js" } {}
            }
            body data-page="embed" {
                (page_data(budget, shown, texts))
                main {
                    (heading(budget, texts))
                    p id="announce" class="visually-hidden" role="status" {}
                    @if budget.openness == Openness::Open {
                        (in_new_tab(&budget.path(), "take-part", texts.text("take_part_new_tab")))
                    }
                    section id="results" {
                        h2 { (texts.text("results")) }
                        (results(budget, shown, None, texts))
                        (in_new_tab(&results_path(budget), "links", texts.text("results_new_tab")))
                    }
                }
            }
        }
    };
    page.into_string()
}

/// Renders the frame that services of other sites show in place of a link.
pub fn embed_frame(
    budget: &BudgetView,
    language: Language,
    public_url: &str,
    width_px: u32,
    height_px: u32,
) -> String {
    let source =
        format!("{public_url}{}", link(&format!("/embed{}", results_path(budget)), language));
    let frame = html! {
        iframe src=(source) title=(without_direction_marks(&budget.name.text)) width=(width_px) height=(height_px)
            loading="lazy" frameborder="0" {}
    };
    frame.into_string()
}

/// Returns the path of the page with the results alone.
pub(super) fn results_path(budget: &BudgetView) -> String {
    format!("{}/results", budget.path())
}

/// Renders the lines that another site copies. Without our own address the page's script fills it in and shows them.
pub(super) fn embed_code(budget: &BudgetView, texts: &Texts, public_url: Option<&str>) -> Markup {
    let origin = public_url.unwrap_or(UNKNOWN_ORIGIN);
    let page = format!("{origin}{}", link(&results_path(budget), texts.language()));
    let lines = html! {
        div data-allocator=(budget.id) data-lang=(texts.language().tag()) {
            a href=(page) { (without_direction_marks(&budget.name.text)) }
        }
        "\n"
        script src={ (origin) "/embed.js" } async {}
    };
    html! {
        details id="embed" hidden[public_url.is_none()] {
            summary { (texts.text("embed")) }
            p { label for="embed-code" { (texts.text("embed_code")) } }
            textarea id="embed-code" rows="4" readonly spellcheck="false" dir="ltr" data-origin=(origin) {
                (lines.into_string())
            }
            p class="note" { (texts.text("embed_note")) }
        }
    }
}
