//! How the pages present a budget: texts, translations, order, and real spending to compare with.
//!
//! Nothing of it is counted or frozen: it may change at any time. Texts stay texts here, as releases differ in what
//! they allow; `rules` checks what an administrator sends, and the pages use what they understand.

mod rules;
mod share;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::CategoryId;

pub use rules::{MAX_TRANSLATIONS, NAME_MAX_CHARS, time_zone};
pub(crate) use rules::{description_fault, name_fault, presentation_faults};
pub use share::{Share, ShareFault};

/// The presentation of a budget; its members are members of the definition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presentation {
    /// What the question is about; may have several lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The language of the definition's own texts, as a BCP 47 tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The texts in other languages, by BCP 47 tag.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub translations: BTreeMap<String, Translation>,
    /// The IANA name of the time zone in which the server writes times; UTC if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Real spending, to compare the results with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// The order of the form's categories.
    #[serde(default, skip_serializing_if = "CategoryOrder::is_fixed")]
    pub order: CategoryOrder,
    /// Whom people can ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
}

/// The order in which the form shows the categories. Results are always in the budget's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CategoryOrder {
    /// The budget's order.
    #[default]
    Fixed,
    /// Another order for each visit.
    Shuffled,
    /// A value that only a newer release knows: shown in the budget's order.
    #[serde(other)]
    Unrecognized,
}

impl CategoryOrder {
    fn is_fixed(&self) -> bool {
        *self == Self::Fixed
    }
}

/// Real spending on the budget's categories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Whose spending, and when.
    pub name: String,
    /// Where the figures are published.
    pub source: String,
    /// The share of each category; a category that is left out has none.
    pub percent: BTreeMap<CategoryId, Share>,
}

/// The definition's texts in another language. A text that is left out is shown in the definition's own language.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// The budget's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The budget's description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The texts of the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<TranslatedReference>,
    /// The texts of the categories.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub categories: BTreeMap<CategoryId, TranslatedCategory>,
}

/// The texts of a reference in another language.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslatedReference {
    /// Whose spending, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the figures are published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// The texts of a category in another language.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslatedCategory {
    /// The category's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The category's description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}
