//! The CQL schema as versioned files. Each is applied once, in order; none is ever changed after its release.

/// One step of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Its place in the order, from 1.
    pub version: u32,
    /// What it is called.
    pub name: &'static str,
    /// Its statements, separated by `;`.
    pub text: &'static str,
}

/// Every migration, in order. All of it is CQL that ScyllaDB and Cassandra both take.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "initial", text: include_str!("../cql/0001_initial.cql") },
    Migration { version: 2, name: "jobs", text: include_str!("../cql/0002_jobs.cql") },
];

/// What to append to `CREATE KEYSPACE` on ScyllaDB only: lightweight transactions are used, which tablets take from
/// 2025.4 on; older releases get vnodes. Cassandra knows no such option.
pub const SCYLLA_KEYSPACE_OPTIONS: &str = " AND tablets = {'enabled': false}";

impl Migration {
    /// The statements, without comments.
    pub fn statements(&self) -> Vec<String> {
        let code: String = self
            .text
            .lines()
            .map(|line| line.split_once("--").map_or(line, |(before, _)| before))
            .collect::<Vec<_>>()
            .join("\n");
        code.split(';').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_a_gap_and_hold_statements() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version as usize, index + 1);
            assert!(
                migration.statements().iter().all(|s| s.starts_with("CREATE")),
                "{}",
                migration.name
            );
        }
    }
}
