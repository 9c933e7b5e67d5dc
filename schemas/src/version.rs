//! Versions of published totals, derived from term and positions: equal versions mean equal content.

use std::fmt;
use std::str::FromStr;

use crate::CombinedTotals;
use crate::fnv::fnv1a;

/// The version of a budget's totals: term, sum of positions, and digest of positions. Its text has a fixed width, and
/// grows in byte order whenever a position advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AggregateVersion {
    term: u32,
    positions_sum: u64,
    positions_digest: u64,
}

impl AggregateVersion {
    /// Lower than the version of any totals: what answers have in its place that show no totals.
    pub const LOWEST: Self = Self { term: 0, positions_sum: 0, positions_digest: 0 };

    /// Computes the version of totals.
    pub fn of(totals: &CombinedTotals) -> Self {
        Self {
            term: totals.term.number,
            positions_sum: totals.positions.iter().map(|position| position.0).sum(),
            positions_digest: fnv1a(
                totals.positions.iter().flat_map(|position| position.0.to_le_bytes()),
            ),
        }
    }
}

impl FromStr for AggregateVersion {
    type Err = NotAVersion;

    /// Parses exactly the text that `Display` writes.
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let mut parts = text.splitn(3, '-');
        let mut number = |digits| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(NotAVersion)?;
            let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            if !is_hex {
                return Err(NotAVersion);
            }
            u64::from_str_radix(part, 16).map_err(|_| NotAVersion)
        };
        Ok(Self {
            term: u32::try_from(number(8)?).map_err(|_| NotAVersion)?,
            positions_sum: number(16)?,
            positions_digest: number(16)?,
        })
    }
}

/// The text is not the version of an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the version of an aggregate")]
pub struct NotAVersion;

impl fmt::Display for AggregateVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:016x}-{:016x}", self.term, self.positions_sum, self.positions_digest)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_text_parses_and_is_ordered_like_the_version(
            one in any::<(u32, u64, u64)>(),
            other in any::<(u32, u64, u64)>(),
        ) {
            let version = |(term, positions_sum, positions_digest)| AggregateVersion {
                term,
                positions_sum,
                positions_digest,
            };
            let (one, other) = (version(one), version(other));
            prop_assert_eq!(one.to_string().parse(), Ok(one));
            prop_assert_eq!(one.to_string().cmp(&other.to_string()), one.cmp(&other));
        }

        #[test]
        fn any_other_text_is_rejected(text in "[0-9a-fA-F-]{0,50}") {
            if let Ok(version) = text.parse::<AggregateVersion>() {
                prop_assert_eq!(version.to_string(), text);
            }
        }
    }
}
