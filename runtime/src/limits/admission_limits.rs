//! The maximum number of requests in progress at which a request of each class is still admitted. Pure functions.

use super::policy::EndpointClass;

/// The part of all requests that batches leave to the other classes: a half.
const LEFT_BY_BATCHES_DIVISOR: usize = 2;
/// The part that reads of the API leave to pages, attempts to sign in and submissions: a fourth.
const LEFT_BY_READS_DIVISOR: usize = 4;
/// The part that pages and attempts to sign in leave to submissions: an eighth.
const LEFT_BY_PAGES_DIVISOR: usize = 8;

/// The maximum number of admitted requests for each class.
///
/// All classes share one count, so that under overload they are shed in this order: batches, reads of the API, pages
/// and attempts to sign in, and single submissions last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AdmissionLimits {
    max_requests: usize,
}

impl AdmissionLimits {
    pub(super) const fn new(max_requests: usize) -> Self {
        Self { max_requests }
    }

    /// Returns how many requests of all classes may be admitted, a request of this class included.
    ///
    /// At least one, since a class without any would be shed for ever.
    pub(super) const fn of(self, class: EndpointClass) -> usize {
        let left_to_others = match class {
            EndpointClass::Batch => self.max_requests.div_ceil(LEFT_BY_BATCHES_DIVISOR),
            EndpointClass::Read => self.max_requests.div_ceil(LEFT_BY_READS_DIVISOR),
            EndpointClass::Page | EndpointClass::SignIn => {
                self.max_requests.div_ceil(LEFT_BY_PAGES_DIVISOR)
            }
            EndpointClass::Submission => 0,
        };
        match self.max_requests - left_to_others {
            0 => 1,
            limit => limit,
        }
    }

    /// Returns whether a request of a class is admitted while `admitted` others are in progress.
    pub(super) const fn admits(self, class: EndpointClass, admitted: usize) -> bool {
        admitted < self.of(class)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The classes in the order in which they are shed. Pages and attempts to sign in are shed together.
    const SHED_ORDER: [&[EndpointClass]; 4] = [
        &[EndpointClass::Batch],
        &[EndpointClass::Read],
        &[EndpointClass::Page, EndpointClass::SignIn],
        &[EndpointClass::Submission],
    ];

    #[test]
    fn each_class_has_its_part_of_all_requests() {
        let limits = AdmissionLimits::new(2_000);
        let of_classes = SHED_ORDER.map(|classes| limits.of(classes[0]));
        assert_eq!(of_classes, [1_000, 1_500, 1_750, 2_000]);
        assert_eq!(limits.of(EndpointClass::SignIn), limits.of(EndpointClass::Page));
    }

    #[test]
    fn the_order_has_every_class_once() {
        let ordered = SHED_ORDER.concat();
        assert_eq!(ordered.len(), EndpointClass::ALL.len());
        assert!(EndpointClass::ALL.iter().all(|class| ordered.contains(class)));
    }

    proptest! {
        #[test]
        fn a_class_is_admitted_whenever_a_class_that_is_shed_before_it_is(
            max_requests in 1..usize::MAX, admitted: usize, near in 0..4_000_usize,
        ) {
            let limits = AdmissionLimits::new(max_requests);
            for admitted in [admitted, near, max_requests.saturating_sub(near)] {
                let outcomes = SHED_ORDER.map(|classes| {
                    let admits = |class: &EndpointClass| limits.admits(*class, admitted);
                    assert!(classes.iter().all(|class| admits(class) == admits(&classes[0])));
                    admits(&classes[0])
                });
                prop_assert!(outcomes.is_sorted(), "{max_requests} {admitted}: {outcomes:?}");
            }
        }

        #[test]
        fn submissions_may_take_everything_and_the_others_leave_some_to_them(
            max_requests in prop_oneof![1..100_usize, 1..usize::MAX],
        ) {
            let limits = AdmissionLimits::new(max_requests);
            prop_assert_eq!(limits.of(EndpointClass::Submission), max_requests);
            for class in EndpointClass::ALL {
                let limit = limits.of(*class);
                prop_assert!((1..=max_requests).contains(&limit));
                let leaves_some = limit < max_requests || max_requests == 1;
                prop_assert!(leaves_some || *class == EndpointClass::Submission);
            }
        }
    }
}
