//! The faults of one body, gathered into one problem.

use super::{Fault, Problem, ProblemKind};

/// A client that makes more faults than this knows enough.
const MOST: usize = 100;
/// No member that is known anywhere has a longer name; one that is longer is not repeated to the client.
const LONGEST_NAME_BYTES: usize = 256;

/// What is wrong with a body so far.
#[derive(Debug, Default)]
pub struct Faults {
    list: Vec<Fault>,
    /// Faults beyond [`MOST`].
    untold: usize,
    /// Whether one of them is about the body's form and not about a rule.
    malformed: bool,
}

impl Faults {
    /// Notes something that is not of the form that is read: a wrong type, a missing or unknown member.
    #[cold]
    pub fn malformed(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.malformed = true;
        self.invalid(pointer, detail);
    }

    /// Notes something of the right form that breaks a rule.
    #[cold]
    pub fn invalid(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.list.len() < MOST {
            self.list.push(Fault { pointer: pointer.into(), detail: detail.into() });
        } else {
            self.untold += 1;
        }
    }

    /// Whether nothing is wrong so far.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether something is already said about the place, or about what it is part of.
    pub fn cover(&self, pointer: &str) -> bool {
        self.list.iter().any(|fault| {
            pointer
                .strip_prefix(fault.pointer.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// The problem that tells them: `malformed` if any is about the form, else of the kind given.
    pub fn into_problem(self, invalid: ProblemKind) -> Problem {
        let kind = if self.malformed { ProblemKind::Malformed } else { invalid };
        let detail = match (self.list.as_slice(), self.untold) {
            ([fault], _) if fault.pointer.is_empty() => format!("the body {}", fault.detail),
            ([fault], _) => format!("`{}` {}", fault.pointer, fault.detail),
            (faults, 0) => format!("{} faults; `errors` lists them all", faults.len()),
            (faults, untold) => {
                let all = faults.len() + untold;
                format!("{all} faults; `errors` lists the first {MOST}")
            }
        };
        Problem::new(kind).detail(detail).faults(self.list)
    }
}

/// The JSON pointer (RFC 6901) of a member. A name too long to be anything is left out: the pointer is its parent's.
pub fn member_pointer(parent: &str, name: &str) -> String {
    if name.len() > LONGEST_NAME_BYTES {
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
    fn more_faults_than_anyone_reads_are_counted_and_not_listed() {
        let mut faults = Faults::default();
        for _ in 0..=MOST {
            faults.invalid("/x", "is wrong");
        }
        let problem = faults.into_problem(ProblemKind::InvalidAllocation);
        assert_eq!(problem.noted_faults().len(), MOST);
        assert_eq!(problem.kind(), ProblemKind::InvalidAllocation);
    }

    #[test]
    fn a_fault_covers_its_place_and_what_is_inside_but_not_its_neighbours() {
        let mut faults = Faults::default();
        faults.malformed("/categories/1", "must be an object");
        assert!(faults.cover("/categories/1/id"));
        assert!(faults.cover("/categories/1"));
        assert!(!faults.cover("/categories/11"));
        assert!(!faults.cover("/categories"));
    }
}
