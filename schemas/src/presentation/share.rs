//! A share in basis points that JSON shows in percent.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::BASIS_POINTS_PER_PERSON;

/// A share of 100 %, in basis points. In JSON: percent, with at most two decimals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u16);

/// Why a number is not a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 0 to 100 percent, with at most two decimals")]
pub struct ShareFault;

impl Share {
    /// Checks a number of basis points.
    ///
    /// # Errors
    /// When it is more than 100 %.
    pub fn of_basis_points(basis_points: u16) -> Result<Self, ShareFault> {
        if u64::from(basis_points) > BASIS_POINTS_PER_PERSON {
            return Err(ShareFault);
        }
        Ok(Self(basis_points))
    }

    /// Checks a percentage, as JSON parsers deliver it.
    fn of_percent(percent: f64) -> Result<Self, ShareFault> {
        let basis_points = (percent * 100.0).round();
        // Exact for two decimals: the nearest `f64` of such a percentage is the same quotient.
        if !(0.0..=BASIS_POINTS_PER_PERSON as f64).contains(&basis_points)
            || basis_points / 100.0 != percent
        {
            return Err(ShareFault);
        }
        // In the range of 16 bits.
        Ok(Self(basis_points as u16))
    }

    /// The share in basis points.
    pub fn basis_points(self) -> u16 {
        self.0
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 100 {
            0 => serializer.serialize_u16(self.0 / 100),
            _ => serializer.serialize_f64(f64::from(self.0) / 100.0),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShareVisitor;

        impl Visitor<'_> for ShareVisitor {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a percentage with at most two decimals")
            }

            fn visit_f64<E: Error>(self, percent: f64) -> Result<Share, E> {
                Share::of_percent(percent).map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, percent: u64) -> Result<Share, E> {
                let basis_points = u16::try_from(percent).ok().and_then(|it| it.checked_mul(100));
                basis_points.ok_or(ShareFault).and_then(Share::of_basis_points).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(ShareVisitor)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_share_is_read_back_from_its_json() {
        for basis_points in 0..=10_000 {
            let share = Share::of_basis_points(basis_points).unwrap();
            let json = serde_json::to_string(&share).unwrap();
            assert!(json.len() <= "100.00".len(), "{json}");
            assert_eq!(serde_json::from_str::<Share>(&json).unwrap(), share, "{json}");
        }
        assert_eq!(serde_json::to_string(&Share(1_605)).unwrap(), "16.05");
        assert_eq!(serde_json::to_string(&Share(4_000)).unwrap(), "40");
    }

    #[test]
    fn other_numbers_are_no_share() {
        assert_eq!(Share::of_basis_points(10_001), Err(ShareFault));
        for json in ["-1", "-0.01", "100.01", "101", "655.36", "0.001", "1e300", "\"1\"", "null"] {
            assert!(serde_json::from_str::<Share>(json).is_err(), "{json}");
        }
        assert_eq!(serde_json::from_str::<Share>("1.50").unwrap(), Share(150));
    }
}
