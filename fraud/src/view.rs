//! A summary as JSON: times in RFC 3339, digests in hexadecimal. For the HTTP API and the command.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use schemas::BudgetId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::summary::{GroupSummary, SignalSummary};

/// What the signals of a budget show. Signals are best effort: an outage may have lost some.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignalsView {
    /// The budget.
    #[schema(value_type = String, example = "taxes")]
    pub budget: BudgetId,
    /// Start of the time that the numbers are about.
    #[schema(value_type = String, format = DateTime)]
    pub from: String,
    /// End of the time that the numbers are about.
    #[schema(value_type = String, format = DateTime)]
    pub until: String,
    /// Start of the signals that were read. A person is new without an earlier signal in them.
    #[schema(value_type = String, format = DateTime)]
    pub read_from: String,
    /// People with a submission or withdrawal.
    pub people: u64,
    /// Those of them with a submission or withdrawal from a known network.
    pub people_with_network: u64,
    /// Submissions and withdrawals.
    pub submissions: u64,
    /// Withdrawals.
    pub withdrawals: u64,
    /// Submissions and withdrawals whose client's network is unknown.
    pub without_network: u64,
    /// New people by hour, earliest first.
    pub new_people: Vec<NewPeopleView>,
    /// The networks of several people with the most people, at most 20.
    pub networks: Vec<NetworkView>,
    /// The ballots of several people with the most people, at most 20.
    pub ballots: Vec<BallotView>,
    /// By identity level.
    pub levels: Vec<LevelView>,
    /// Which numbers are too low because there were too many signals.
    pub truncated: TruncationView,
}

/// New people of one hour.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewPeopleView {
    /// Start of the hour.
    #[schema(value_type = String, format = DateTime)]
    pub from: String,
    /// New people.
    pub people: u64,
    /// New people of the same hour a day before.
    pub people_day_before: u64,
}

/// A network: an IPv4 /24 or an IPv6 /48, on one UTC day.
#[derive(Debug, Serialize, ToSchema)]
pub struct NetworkView {
    /// Digest of the network, of this day and budget alone.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    pub network: String,
    /// The UTC day.
    #[schema(value_type = String, format = Date)]
    pub day: String,
    /// People.
    pub people: u64,
    /// Share of all people, in percent.
    pub share_percent: f64,
    /// Submissions and withdrawals.
    pub submissions: u64,
    /// Different ballots.
    pub ballots: u64,
    /// Different user agents.
    pub agents: u64,
    /// Time of the first submission.
    #[schema(value_type = String, format = DateTime)]
    pub first_at: String,
    /// Time of the last submission.
    #[schema(value_type = String, format = DateTime)]
    pub last_at: String,
}

/// A ballot that several people have submitted.
#[derive(Debug, Serialize, ToSchema)]
pub struct BallotView {
    /// Digest of the shares, of this budget alone.
    #[schema(pattern = "^[0-9a-f]{16}$")]
    pub ballot: String,
    /// People.
    pub people: u64,
    /// Share of all people, in percent.
    pub share_percent: f64,
    /// Submissions.
    pub submissions: u64,
    /// Different networks; one network counts anew each UTC day.
    pub networks: u64,
    /// Different user agents; one counts anew each UTC day.
    pub agents: u64,
    /// Time of the first submission.
    #[schema(value_type = String, format = DateTime)]
    pub first_at: String,
    /// Time of the last submission.
    #[schema(value_type = String, format = DateTime)]
    pub last_at: String,
}

/// People and submissions of one identity level.
#[derive(Debug, Serialize, ToSchema)]
pub struct LevelView {
    /// Who vouched for the people: `unproven`, `anonymous`, `email`, `code` or `token`.
    #[schema(value_type = String)]
    pub level: &'static str,
    /// People.
    pub people: u64,
    /// Submissions and withdrawals.
    pub submissions: u64,
}

/// Which numbers are too low.
#[derive(Debug, Serialize, ToSchema)]
pub struct TruncationView {
    /// Those of people.
    pub people: bool,
    /// Those of networks; small ones may be missing.
    pub networks: bool,
    /// Those of ballots; rare ones may be missing.
    pub ballots: bool,
}

impl SignalsView {
    /// Creates the view of a budget's summary.
    pub fn of(budget: &BudgetId, summary: &SignalSummary) -> Self {
        let share = |people: u64| share_percent(people, summary.people);
        Self {
            budget: budget.clone(),
            from: instant(summary.shown_ms.start),
            until: instant(summary.shown_ms.end),
            read_from: instant(summary.read_ms.start),
            people: summary.people,
            people_with_network: summary.people_with_network,
            submissions: summary.submissions,
            withdrawals: summary.withdrawals,
            without_network: summary.without_network,
            new_people: summary
                .new_people
                .iter()
                .map(|hour| NewPeopleView {
                    from: instant(hour.start_ms),
                    people: hour.people,
                    people_day_before: hour.people_day_before,
                })
                .collect(),
            networks: summary
                .networks
                .iter()
                .map(|group| NetworkView {
                    network: group.key.to_string(),
                    day: time(group.first_ms).to_zoned(TimeZone::UTC).date().to_string(),
                    people: group.people,
                    share_percent: share(group.people),
                    submissions: group.submissions,
                    ballots: group.others,
                    agents: group.agents,
                    first_at: instant(group.first_ms),
                    last_at: instant(group.last_ms),
                })
                .collect(),
            ballots: summary
                .ballots
                .iter()
                .map(|group: &GroupSummary<_>| BallotView {
                    ballot: group.key.to_string(),
                    people: group.people,
                    share_percent: share(group.people),
                    submissions: group.submissions,
                    networks: group.others,
                    agents: group.agents,
                    first_at: instant(group.first_ms),
                    last_at: instant(group.last_ms),
                })
                .collect(),
            levels: summary
                .levels
                .iter()
                .map(|level| LevelView {
                    level: level.level.as_str(),
                    people: level.people,
                    submissions: level.submissions,
                })
                .collect(),
            truncated: TruncationView {
                people: summary.truncated.people,
                networks: summary.truncated.networks,
                ballots: summary.truncated.ballots,
            },
        }
    }
}

/// Returns a share in percent with two decimals.
fn share_percent(people: u64, of: u64) -> f64 {
    match of {
        0 => 0.0,
        of => (people as f64 * 10_000.0 / of as f64).round() / 100.0,
    }
}

fn time(ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

fn instant(ms: u64) -> String {
    format!("{:.3}", time(ms))
}
