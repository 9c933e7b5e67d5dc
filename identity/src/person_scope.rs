//! Whose submission a request may set, withdraw or read.

use std::sync::Arc;

use runtime::problem::{Problem, ProblemKind};
use schemas::PersonId;

use crate::email::EmailAddress;
use crate::issuer::EMAIL;

/// What a request does with a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads it.
    Read,
    /// Sets or withdraws it. A cookie alone does not suffice: another site's page could have sent it.
    Write,
}

/// For whom a request may act in one budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PersonScope {
    /// For whomever the client names: the budget demands no proof.
    Unproven,
    /// For the person alone whose credentials the request has.
    Person {
        /// The person.
        person: PersonId,
        /// Who vouches for the person.
        issuer: Arc<str>,
    },
    /// For each subject of the issuer: a service or an administrator.
    OnBehalf {
        /// Who vouches for the persons of the budget.
        issuer: Arc<str>,
    },
}

impl PersonScope {
    /// Returns the person of a submission whose body names `named`.
    ///
    /// # Errors
    /// When the body names somebody else.
    pub fn person_in_body(&self, named: Option<PersonId>) -> Result<Option<PersonId>, Problem> {
        match (self, named) {
            (Self::Person { person, .. }, None) => Ok(Some(person.clone())),
            (_, None) => Ok(None),
            (_, Some(named)) => self.person_in_path(named).map(Some),
        }
    }

    /// Returns the person whom a path names.
    ///
    /// # Errors
    /// When the path names somebody else, or nobody whom the issuer can know.
    pub fn person_in_path(&self, named: PersonId) -> Result<PersonId, Problem> {
        match self {
            Self::Unproven => Ok(named),
            Self::OnBehalf { issuer } => subject(issuer, &named),
            Self::Person { person, issuer }
                if subject(issuer, &named).is_ok_and(|named| named == *person) =>
            {
                Ok(person.clone())
            }
            Self::Person { .. } => Err(Problem::new(ProblemKind::Forbidden)
                .detail("the credentials are another person's than the request names")),
        }
    }

    /// Returns the person who asks, as `me` names it.
    ///
    /// # Errors
    /// When the credentials are no person's.
    pub fn own_person(&self) -> Result<PersonId, Problem> {
        match self {
            Self::Person { person, .. } => Ok(person.clone()),
            Self::Unproven => Err(Problem::new(ProblemKind::Forbidden)
                .detail("this budget knows persons by the name that a submission gives them, not by `me`")),
            Self::OnBehalf { .. } => Err(Problem::new(ProblemKind::Forbidden)
                .detail("the credentials are a program's or an administrator's, who name the person in the path")),
        }
    }

    /// Whether a person asks, whom `me` names.
    pub fn is_person(&self) -> bool {
        matches!(self, Self::Person { .. })
    }
}

/// Returns the person whom an issuer knows by a name. A mailbox is the same person in every spelling.
fn subject(issuer: &str, named: &PersonId) -> Result<PersonId, Problem> {
    let known = match issuer {
        EMAIL => {
            let address = EmailAddress::parse(named.reveal()).map_err(|fault| {
                Problem::new(ProblemKind::Malformed).detail(format!("the person {fault}"))
            })?;
            PersonId::of_issuer(issuer, address.reveal())
        }
        _ => PersonId::of_issuer(issuer, named.reveal()),
    };
    known.map_err(|_| Problem::new(ProblemKind::Internal))
}
