#![allow(clippy::unwrap_used)]

use schemas::{
    AgentDigest, BallotDigest, Budget, IdentityLevel, NetworkDigest, PersonKey, Signal,
    SignalAction, SignalOrigin, default_budgets,
};
use storage::control::sqlite::SqliteControlTopic;
use storage::control::{define, delete};
use storage::signals::{SignalWriter, SqliteSignalReader, SqliteSignalWriter};
use tempfile::TempDir;

use super::*;

const HOUR_MS: u64 = 3_600_000;

struct Fixture {
    monitor: SignalMonitor,
    metrics: Metrics,
    writer: SqliteSignalWriter,
    control: Arc<SqliteControlTopic>,
    assigned: watch::Sender<BTreeSet<PartitionId>>,
    now_ms: u64,
    next_person: u128,
    dir: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("signals.db");
        let control = Arc::new(SqliteControlTopic::open(&dir.path().join("d.db")).unwrap());
        let taxes = default_budgets().unwrap().remove(0);
        for id in ["taxes", "town"] {
            let budget = Budget { id: BudgetId::parse(id).unwrap(), ..taxes.clone() };
            let decide = |current: Option<&Budget>| define(current, &budget);
            control.change(&budget.id, &decide).await.unwrap();
        }
        let metrics = Metrics::new("test");
        let (assigned, receiver) = watch::channel(BTreeSet::from([PartitionId(0)]));
        let monitor = SignalMonitor::new(SignalMonitorDeps {
            signals: Arc::new(SqliteSignalReader::new(&path)),
            definitions: Arc::clone(&control) as _,
            assigned: receiver,
            metrics: SignalMetrics::new(&metrics).unwrap(),
        });
        Self {
            monitor,
            metrics,
            writer: SqliteSignalWriter::new(&path),
            control,
            assigned,
            now_ms: now_ms(),
            next_person: 0,
            dir,
        }
    }

    /// Appends signals of new people, so many hours before now.
    async fn people(&mut self, budget: &str, count: u128, hours_ago: u64, network: Option<u64>) {
        let signals: Vec<Signal> = (0..count)
            .map(|n| Signal {
                budget: BudgetId::parse(budget).unwrap(),
                person: PersonKey::from_bytes((self.next_person + n).to_be_bytes()),
                accepted_at_ms: self.now_ms - hours_ago * HOUR_MS - HOUR_MS / 2,
                action: SignalAction::Allocate(BallotDigest(1)),
                origin: SignalOrigin {
                    network: network.map(NetworkDigest),
                    agent: Some(AgentDigest(1)),
                    identity: IdentityLevel::Anonymous,
                },
            })
            .collect();
        self.next_person += count;
        self.writer.append(&signals).await.unwrap();
    }

    async fn values(&self) -> Vec<String> {
        self.monitor.update(self.now_ms).await;
        self.rendered()
    }

    /// The lines of the two ratios, without their common prefix.
    fn rendered(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains("_ratio")).collect()
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("allocator_signals_"));
        lines.map(str::to_owned).collect()
    }

    /// Whether the metrics say that values are missing or too low.
    fn is_incomplete(&self) -> bool {
        self.lines().contains(&"incomplete 1".to_owned())
    }
}

#[tokio::test]
async fn metrics_show_the_largest_network_and_the_ratio_of_new_people_of_the_last_hour() {
    let mut fixture = Fixture::new().await;
    assert_eq!(fixture.values().await, [""; 0], "no signals, no values");
    fixture.people("taxes", 150, 0, Some(7)).await;
    fixture.people("taxes", 50, 0, Some(8)).await;
    fixture.people("taxes", 300, 0, None).await;
    fixture.people("taxes", 100, 24, Some(9)).await;
    // Too few people for a value.
    fixture.people("town", 99, 0, Some(7)).await;
    fixture.people("town", 99, 24, Some(7)).await;
    // No budget of this deployment.
    fixture.people("nowhere", 500, 0, Some(7)).await;
    let expected =
        ["largest_network_ratio{budget=\"taxes\"} 0.75", "new_people_ratio{budget=\"taxes\"} 5"];
    assert_eq!(fixture.values().await, expected);
}

#[tokio::test]
async fn a_value_ends_with_its_budget_and_when_the_signals_cannot_be_read() {
    let mut fixture = Fixture::new().await;
    fixture.people("taxes", 100, 0, Some(7)).await;
    fixture.people("town", 100, 0, Some(7)).await;
    assert_eq!(fixture.values().await.len(), 2);
    fixture.control.delete(&BudgetId::parse("town").unwrap(), &delete).await.unwrap();
    assert_eq!(fixture.values().await, ["largest_network_ratio{budget=\"taxes\"} 1"]);
    // Closed, so that nothing of the file is left in its write-ahead log.
    let path = fixture.dir.path().join("signals.db");
    fixture.writer = SqliteSignalWriter::new(&fixture.dir.path().join("other.db"));
    assert!(!fixture.is_incomplete());
    std::fs::write(&path, [0xab; 8_192]).unwrap();
    assert_eq!(fixture.values().await, [""; 0]);
    assert!(fixture.is_incomplete());
    std::fs::remove_file(&path).unwrap();
    fixture.values().await;
    assert!(!fixture.is_incomplete(), "no file has no signals");
}

#[tokio::test]
async fn a_flood_beyond_the_memory_shows_a_share_that_is_too_low_and_says_so() {
    let fixture = Fixture::new().await;
    let window = SummaryWindow::new(fixture.now_ms, 1).unwrap();
    let mut fold = SummaryFold::new(window, SummaryBounds { people: 1_000, members: 200 });
    let signal = |person: u128, network| Signal {
        budget: BudgetId::parse("taxes").unwrap(),
        person: PersonKey::from_bytes(person.to_be_bytes()),
        accepted_at_ms: fixture.now_ms - HOUR_MS / 2,
        action: SignalAction::Withdraw,
        origin: SignalOrigin {
            network: Some(NetworkDigest(network)),
            agent: None,
            identity: IdentityLevel::Anonymous,
        },
    };
    (0..300).for_each(|person| fold.add(&signal(person, 7)));
    (300..400).for_each(|person| fold.add(&signal(person, 8)));
    let summary = fold.finish();
    let largest = summary.networks[0].people;
    assert!(largest < 300 && summary.people_with_network == 400, "{largest}");
    let metrics = &fixture.monitor.deps.metrics;
    metrics.set(&[(BudgetId::parse("taxes").unwrap(), summary)]);
    let share = largest as f64 / 400.0;
    assert_eq!(fixture.rendered(), [format!("largest_network_ratio{{budget=\"taxes\"}} {share}")]);
    assert!(fixture.is_incomplete());
    metrics.set(&[]);
    assert!(!fixture.is_incomplete());
}

#[tokio::test]
async fn only_the_process_with_partition_0_has_values() {
    let mut fixture = Fixture::new().await;
    fixture.people("taxes", 100, 0, Some(7)).await;
    let stop = CancellationToken::new();
    let Fixture { monitor, metrics, assigned, .. } = fixture;
    let shows_value = || {
        String::from_utf8(metrics.render())
            .unwrap()
            .contains("allocator_signals_largest_network_ratio{")
    };
    let running = tokio::spawn(monitor.run(stop.clone()));
    for ours in [true, false, true] {
        assigned.send_replace(if ours { [PartitionId(0)].into() } else { [PartitionId(3)].into() });
        let wait = async {
            while shows_value() != ours {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    }
    stop.cancel();
    running.await.unwrap();
    assert!(!shows_value(), "a process that stops shows no old value");
}
