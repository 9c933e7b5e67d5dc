//! Collects the faults of a body into one problem.

use super::{FieldFault, Problem, ProblemKind};

/// Maximum number of faults listed in a problem.
const MAX_FAULTS: usize = 100;
/// Maximum length of a member name repeated to the client. Every valid name is shorter.
const MAX_NAME_BYTES: usize = 256;

/// The faults found in a body so far.
#[derive(Debug, Default)]
pub struct Faults {
    list: Vec<FieldFault>,
    /// Number of faults beyond [`MAX_FAULTS`].
    omitted: usize,
    /// Whether any fault is of syntax or type, not of a rule.
    malformed: bool,
}

impl Faults {
    /// Adds a fault of syntax or type: a wrong type, a missing or unknown member.
    #[cold]
    pub fn malformed(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.malformed = true;
        self.invalid(pointer, detail);
    }

    /// Adds a fault of a well-formed value that breaks a rule.
    #[cold]
    pub fn invalid(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.list.len() < MAX_FAULTS {
            self.list.push(FieldFault { pointer: pointer.into(), detail: detail.into() });
        } else {
            self.omitted += 1;
        }
    }

    /// Whether no fault was found so far.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a fault is already recorded at this pointer or at one of its parents.
    pub fn covers(&self, pointer: &str) -> bool {
        self.list.iter().any(|fault| {
            pointer
                .strip_prefix(fault.pointer.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Builds the problem: `malformed` if any fault is of syntax or type, else of the given kind.
    pub fn into_problem(self, invalid: ProblemKind) -> Problem {
        let kind = if self.malformed { ProblemKind::Malformed } else { invalid };
        let detail = match (self.list.as_slice(), self.omitted) {
            ([fault], _) if fault.pointer.is_empty() => format!("the body {}", fault.detail),
            ([fault], _) => format!("`{}` {}", fault.pointer, fault.detail),
            (faults, 0) => format!("{} faults; `errors` lists them all", faults.len()),
            (faults, omitted) => {
                let all = faults.len() + omitted;
                format!("{all} faults; `errors` lists the first {MAX_FAULTS}")
            }
        };
        Problem::new(kind).detail(detail).faults(self.list)
    }
}

/// Returns the JSON pointer (RFC 6901) of a member. If the name is too long to repeat, returns the parent's.
pub fn member_pointer(parent: &str, name: &str) -> String {
    if name.len() > MAX_NAME_BYTES {
        return parent.to_owned();
    }
    let mut pointer = String::with_capacity(parent.len() + name.len() + 1);
    pointer.push_str(parent);
    pointer.push('/');
    for character in name.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_escape_tilde_and_slash() {
        assert_eq!(member_pointer("/allocation", "a~b/c"), "/allocation/a~0b~1c");
        assert_eq!(member_pointer("", ""), "/");
    }

    #[test]
    fn faults_beyond_the_maximum_are_counted_but_not_listed() {
        let mut faults = Faults::default();
        for _ in 0..=MAX_FAULTS {
            faults.invalid("/x", "is wrong");
        }
        let problem = faults.into_problem(ProblemKind::InvalidAllocation);
        assert_eq!(problem.recorded_faults().len(), MAX_FAULTS);
        assert_eq!(problem.kind(), ProblemKind::InvalidAllocation);
    }

    #[test]
    fn a_fault_covers_its_pointer_and_children_but_not_siblings() {
        let mut faults = Faults::default();
        faults.malformed("/categories/1", "must be an object");
        assert!(faults.covers("/categories/1/id"));
        assert!(faults.covers("/categories/1"));
        assert!(!faults.covers("/categories/11"));
        assert!(!faults.covers("/categories"));
    }
}
