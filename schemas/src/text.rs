//! Slugs: ids of budgets and categories, as used in URLs, JSON, keys and columns.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Maximum length of a slug, in bytes.
pub const SLUG_MAX_BYTES: usize = 64;

/// Why a text is not a valid slug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlugFault {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than 64 bytes.
    #[error("must be at most {SLUG_MAX_BYTES} characters")]
    TooLong,
    /// The text has a character other than `a-z`, `0-9` and `-`, or a hyphen at either end.
    #[error("must be lower-case letters, digits and inner hyphens, such as `public-order`")]
    Characters,
}

pub(crate) fn check_slug(text: &str) -> Result<(), SlugFault> {
    if text.is_empty() {
        return Err(SlugFault::Empty);
    }
    if text.len() > SLUG_MAX_BYTES {
        return Err(SlugFault::TooLong);
    }
    let well_formed =
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !well_formed || text.starts_with('-') || text.ends_with('-') {
        return Err(SlugFault::Characters);
    }
    Ok(())
}

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a slug.
            ///
            /// # Errors
            /// When the text is empty, too long, or has a character other than `a-z0-9-`.
            pub fn parse(text: &str) -> Result<Self, SlugFault> {
                check_slug(text)?;
                Ok(Self(text.into()))
            }

            /// The slug as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = SlugFault;
            fn try_from(text: String) -> Result<Self, SlugFault> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(slug: $name) -> String {
                slug.0.as_ref().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

slug!(
    /// The id of a budget, such as `taxes`.
    BudgetId
);
slug!(
    /// The id of a category within its budget, such as `health`.
    CategoryId
);
