//! The limit of open files, each connection being one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process needs besides its clients' connections: databases, logs, connections to servers.
const RESERVED_FILES: u64 = 256;

/// Raises the soft limit to the hard one. The soft limit is usually 1,024, for the sake of programs that use `select`.
///
/// Returns the limit; `None` if there is none.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused only by a container's policy; the limit is then as it was.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current
}

/// Returns the number of connections that the limit has room for. Beyond the limit a client would wait without an
/// answer.
pub(crate) fn connection_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(connections_within(limit)).unwrap_or(usize::MAX)
}

fn connections_within(limit: u64) -> u64 {
    limit.saturating_sub(RESERVED_FILES).max(limit / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let lowered = Rlimit { current: Some(700), maximum: before.maximum };
        assert_eq!(setrlimit(Resource::Nofile, lowered), Ok(()));
        assert_eq!(connection_limit(), 444);
        assert_eq!(raise_limit(), before.maximum);
        assert!(connection_limit() > 444);
    }

    #[test]
    fn connections_leave_files_for_everything_else() {
        for (limit, connections) in [(1_024, 768), (300, 150), (1, 1), (u64::MAX, u64::MAX - 256)] {
            assert_eq!(connections_within(limit), connections, "{limit}");
        }
    }
}
