//! The limit of open files of this program, each connection of its clients being one.

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that this program needs besides its clients' connections: logs, pipes, connections to servers.
const RESERVED_FILES: u64 = 512;

/// Raises the soft limit to the hard one, and checks that it has room for this many connections.
///
/// # Errors
/// When the hard limit is too low.
pub fn raise_limit_for(connections: u32) -> Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let needed = u64::from(connections) + RESERVED_FILES;
    ensure!(
        maximum.is_none_or(|maximum| maximum >= needed),
        "{connections} connections need {needed} open files; the hard limit is {maximum:?}: `ulimit -Hn {needed}`"
    );
    Ok(())
}
