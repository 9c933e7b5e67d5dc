//! Admits a bounded number of requests at the same time, over all limited routes of the process.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::admission_limits::AdmissionLimits;
use super::policy::EndpointClass;

/// Counts the admitted requests and admits further ones by their class.
#[derive(Debug)]
pub(super) struct Admission {
    limits: AdmissionLimits,
    /// Leaked: a process has one, and a permit would have to count references to it otherwise.
    admitted: &'static AtomicUsize,
}

impl Admission {
    pub(super) fn new(limits: AdmissionLimits) -> Self {
        Self { limits, admitted: Box::leak(Box::default()) }
    }

    /// Whether a request would be admitted now.
    pub(super) fn admits(&self, class: EndpointClass) -> bool {
        self.limits.admits(class, self.admitted.load(Ordering::Relaxed))
    }

    /// Admits a request; `None` if the admitted ones leave none to its class.
    pub(super) fn admit(&self, class: EndpointClass) -> Option<RequestPermit> {
        // Under overload most requests end here, so that they do not hold up those that are admitted.
        if !self.admits(class) {
            return None;
        }
        let admitted = self.admitted.fetch_add(1, Ordering::Relaxed);
        let permit = RequestPermit { admitted: self.admitted };
        // Other requests may have been admitted since; then this one gives its permit back.
        self.limits.admits(class, admitted).then_some(permit)
    }
}

/// A request that is being handled; it counts as admitted until this is dropped.
#[derive(Debug)]
pub(super) struct RequestPermit {
    admitted: &'static AtomicUsize,
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.admitted.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit_all(admission: &Admission, class: EndpointClass) -> Vec<RequestPermit> {
        std::iter::from_fn(|| admission.admit(class)).collect()
    }

    #[test]
    fn all_classes_share_one_count() {
        let admission = Admission::new(AdmissionLimits::new(8));
        let batches = admit_all(&admission, EndpointClass::Batch);
        let reads = admit_all(&admission, EndpointClass::Read);
        let sign_ins = admit_all(&admission, EndpointClass::SignIn);
        assert!(admission.admit(EndpointClass::Page).is_none());
        let submissions = admit_all(&admission, EndpointClass::Submission);
        let counts = [&batches, &reads, &sign_ins, &submissions].map(Vec::len);
        assert_eq!(counts, [4, 2, 1, 1]);
        drop((reads, submissions));
        assert!(admission.admit(EndpointClass::Batch).is_none());
        assert!(admission.admit(EndpointClass::Read).is_some());
    }

    #[test]
    fn concurrent_requests_never_exceed_their_limit_and_give_everything_back() {
        const LIMIT: usize = 3;
        let admission = Admission::new(AdmissionLimits::new(LIMIT));
        let (held, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let Some(permit) = admission.admit(EndpointClass::Submission) else {
                            continue;
                        };
                        let now = held.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert!((1..=LIMIT).contains(&most.into_inner()));
        assert_eq!(admit_all(&admission, EndpointClass::Submission).len(), LIMIT);
    }
}
