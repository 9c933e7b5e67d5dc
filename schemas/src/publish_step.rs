//! The publish step of a budget: how many people must have changed before its results move.

/// How many people of a partition must have changed before what readers are shown moves. 1: each change is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishStep(u16);

impl PublishStep {
    /// Each change is shown.
    pub const ONE: Self = Self(1);
    /// The largest step, which bounds the pending people that a partition stores.
    pub const MAX: Self = Self(1_000);

    /// Returns the step nearest to a number. Records and definitions of other releases may have numbers that this one
    /// does not accept: a submission counts whatever its step is.
    pub fn nearest(number: u64) -> Self {
        let bounded = number.clamp(Self::ONE.0.into(), Self::MAX.0.into());
        // At most `MAX`, so it fits.
        Self(bounded as u16)
    }

    /// Whether each change is shown.
    pub fn is_one(self) -> bool {
        self == Self::ONE
    }

    /// The number of people.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The number of people in a message, where an absent number means 1.
    pub(crate) fn to_proto(self) -> u32 {
        if self.is_one() { 0 } else { self.0.into() }
    }
}

impl Default for PublishStep {
    fn default() -> Self {
        Self::ONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_other_releases_become_the_nearest_step() {
        for (number, nearest) in [(0, 1), (1, 1), (7, 7), (1_000, 1_000), (1_001, 1_000)] {
            assert_eq!(PublishStep::nearest(number).get(), nearest);
        }
        assert_eq!(PublishStep::nearest(u64::MAX), PublishStep::MAX);
    }
}
