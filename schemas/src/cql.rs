//! The CQL schema as numbered migrations. Each is applied once, in order; released ones never change.

/// One migration of the CQL schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Number of the migration, from 1.
    pub version: u32,
    /// Name of the migration.
    pub name: &'static str,
    /// CQL statements, separated by `;`.
    pub text: &'static str,
}

/// All migrations, in order, in CQL that both ScyllaDB and Cassandra accept.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "initial", text: include_str!("../cql/0001_initial.cql") },
    Migration { version: 2, name: "jobs", text: include_str!("../cql/0002_jobs.cql") },
];

/// Migrations that an earlier release ignores, numbered on their own: it opens a keyspace that has them.
pub const ADDITIONS: &[Migration] = &[Migration {
    version: 1,
    name: "history",
    text: include_str!("../cql/addition_0001_history.cql"),
}];

/// Options to append to `CREATE KEYSPACE` on ScyllaDB, but not on Cassandra, which rejects them. Disables tablets,
/// since they support lightweight transactions only from 2025.4 on.
pub const SCYLLA_KEYSPACE_OPTIONS: &str = " AND tablets = {'enabled': false}";

impl Migration {
    /// Splits the text into statements, without comments.
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
    fn migrations_are_numbered_without_gaps_and_only_create() {
        for migrations in [MIGRATIONS, ADDITIONS] {
            for (index, migration) in migrations.iter().enumerate() {
                assert_eq!(migration.version as usize, index + 1);
                assert!(
                    migration.statements().iter().all(|s| s.starts_with("CREATE")),
                    "{}",
                    migration.name
                );
            }
        }
    }
}
