//! What a credential allows.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The rights of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Submits for other persons, alone and in batches. For programs: reads no administrator routes.
    Submitter,
    /// Reads administrator routes.
    Viewer,
    /// Starts and cancels jobs, decides on dead letters, clears caches.
    Operator,
    /// Changes budget definitions, and forgets the persons of closed budgets.
    Admin,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Submitter, Self::Viewer, Self::Operator, Self::Admin];

    /// Whether the rights of this role include those of another. Operators include viewers, and admins everyone; a
    /// submitter's rights concern persons' submissions, which viewers and operators do not see.
    pub const fn includes(self, required: Self) -> bool {
        match self {
            Self::Submitter => matches!(required, Self::Submitter),
            Self::Viewer => matches!(required, Self::Viewer),
            Self::Operator => matches!(required, Self::Viewer | Self::Operator),
            Self::Admin => true,
        }
    }

    /// Returns the name used in the tokens file, in responses, in the log and as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submitter => "submitter",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
