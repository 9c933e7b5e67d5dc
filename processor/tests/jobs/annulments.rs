//! Annulments as jobs of a whole processor: what they change is what they say, whatever fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use runtime::clock::now_ms;
use schemas::job::{self, Job, JobKind, JobState, Verdict};
use schemas::{
    AnnulmentEffect, AnnulmentEntry, AnnulmentId, AnnulmentPart, AnnulmentReason, AnnulmentRequest,
    AnnulmentSelection, AnnulmentState, BallotDigest, Budget, BudgetId, CombinedTotals,
    IdentityLevel, NetworkDigest, PersonKey, PersonKeys, RecordAddress, ResultsSummary, Signal,
    SignalAction, SignalOrigin, SignalSpan, StoredAnnulments,
};
use storage::control::sqlite::SqliteControlTopic;
use storage::control::{AnnulmentRegisters, BudgetDefinitions, define_if_absent, freeze};
use storage::jobs::{JobStore, update_job};
use storage::log::{AppendError, LogWriter, NewRecord};
use storage::signals::{SignalWriter, SqliteSignalWriter};
use storage::store::{Checkpoints, Generations, People};
use uuid::Uuid;

use crate::fixture::{BUDGETS, CATEGORIES, Fixture, PARTITIONS, budget, count, definition, person};
use crate::kinds::{run, submit_job, wait_until};

pub const RECORDS: u64 = 2_000;

/// A processor that has folded submissions to a budget whose definition is frozen.
pub async fn world() -> Fixture {
    let mut fixture = Fixture::start().await;
    fixture.append_without_annulments(RECORDS).await;
    fixture.wait_until_settled().await;
    fixture.stop_processor().await;
    let definitions = control(&fixture);
    for id in BUDGETS {
        let wanted = definition(id);
        let define = |current: Option<&Budget>| define_if_absent(current, &wanted);
        definitions.change(&wanted.id, &define).await.unwrap();
        definitions.change(&wanted.id, &freeze).await.unwrap();
    }
    fixture.start_processor().await;
    fixture
}

pub fn control(fixture: &Fixture) -> SqliteControlTopic {
    SqliteControlTopic::open(&fixture.dir.path().join("d.db")).unwrap()
}

pub fn roads() -> BudgetId {
    budget(BUDGETS[0])
}

fn id(number: u128) -> AnnulmentId {
    AnnulmentId(Uuid::from_u128(number))
}

pub fn request(number: u128, people: &[u64]) -> AnnulmentRequest {
    let keys = people.iter().map(|who| person(*who)).collect();
    AnnulmentRequest {
        id: id(number),
        budget: roads(),
        selection: AnnulmentSelection::Persons { persons: PersonKeys::new(keys).unwrap() },
        reason: AnnulmentReason::parse("spam").unwrap(),
        dry_run: false,
        part: AnnulmentPart::default(),
    }
}

pub fn annul(request: AnnulmentRequest) -> JobKind {
    JobKind::Annul { annulment: Box::new(request) }
}

pub fn restore(number: u128, dry_run: bool) -> JobKind {
    JobKind::RestoreAnnulment { budget: roads(), annulment: id(number), dry_run }
}

/// Returns the committed totals.
async fn totals(fixture: &Fixture) -> CombinedTotals {
    let registry = fixture.store.registry().await.unwrap().unwrap();
    let generation = registry.active.generation;
    let summaries = fixture.store.summaries(generation, count(), &[roads()]).await.unwrap();
    let summary = summaries.into_iter().next().unwrap().unwrap();
    CombinedTotals::merge(registry.term(), count(), &summary).unwrap()
}

async fn summary(fixture: &Fixture) -> ResultsSummary {
    let totals = totals(fixture).await;
    ResultsSummary::of(totals.people, &ResultsSummary::sums(&totals.categories))
}

/// Returns people and sums of those who are not annulled, from their rows.
async fn naive(fixture: &Fixture, annulled: &[u64]) -> (u64, Vec<u64>) {
    let (mut people, mut sums) = (0, vec![0; CATEGORIES.len()]);
    for who in (0..60).filter(|who| !annulled.contains(who)) {
        let row = row(fixture, who).await;
        let Some(row) = row.filter(|row| row.budget == roads() && !row.basis_points.is_empty())
        else {
            continue;
        };
        people += 1;
        for (sum, share) in sums.iter_mut().zip(row.basis_points) {
            *sum += u64::from(share);
        }
    }
    (people, sums)
}

async fn row(fixture: &Fixture, who: u64) -> Option<schemas::PersonRow> {
    let key = person(who);
    let id = fixture.id(schemas::partition_for(&key, count()).0).await;
    fixture.store.person(id, &key).await.unwrap()
}

pub async fn check_totals(fixture: &Fixture, annulled: &[u64]) {
    let (people, sums) = naive(fixture, annulled).await;
    let totals = totals(fixture).await;
    let found = ResultsSummary::sums(&totals.categories);
    assert_eq!((totals.people, found), (people, sums));
    assert!(people > 0);
}

pub async fn records(fixture: &Fixture) -> u64 {
    let mut records = 0;
    for partition in 0..PARTITIONS {
        records += fixture.stored(partition).await.checkpoint.position.0;
    }
    records
}

pub async fn entry(fixture: &Fixture, number: u128) -> Option<AnnulmentEntry> {
    let stored = control(fixture).annulments(&roads()).await.unwrap();
    let StoredAnnulments::Understood(register) = stored else { panic!("{stored:?}") };
    register.get(id(number)).cloned()
}

/// Runs a job that must succeed without a refusal, and returns what it changes.
pub async fn effect_of(fixture: &Fixture, kind: JobKind) -> AnnulmentEffect {
    let id = submit_job(fixture, kind).await;
    let job = wait_until(fixture, id, Job::is_ended).await;
    let JobState::Succeeded { verdict: Verdict::Clean, .. } = job.state else { panic!("{job:?}") };
    job.annulment_effect().unwrap()
}

/// Waits until this many records more are folded, and their rows are written.
pub async fn settle(fixture: &Fixture, more: u64) {
    fixture.note_appended(more);
    fixture.wait_until_settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annulled_people_do_not_count_as_a_dry_run_says_before_and_are_restored_exactly() {
    let mut fixture = world().await;
    let (people, before) = ([0, 2, 4, 6, 8, 10], totals(&fixture).await);
    let planned =
        effect_of(&fixture, annul(AnnulmentRequest { dry_run: true, ..request(1, &people) })).await;
    assert_eq!((totals(&fixture).await, records(&fixture).await), (before.clone(), RECORDS));
    assert_eq!(entry(&fixture, 1).await, None);
    assert_eq!((planned.selected, planned.unknown, planned.unchanged), (6, 0, 0));
    assert!(planned.changed > 0, "{planned}");

    let annulled = effect_of(&fixture, annul(request(1, &people))).await;
    assert_eq!(annulled, planned);
    settle(&fixture, 6).await;
    assert_eq!(summary(&fixture).await, planned.after);
    check_totals(&fixture, &people).await;
    let listed = entry(&fixture, 1).await.unwrap();
    assert_eq!((listed.state, listed.by.as_str()), (AnnulmentState::Done, "an operator"));
    assert_eq!((listed.people, listed.changed), (6, planned.changed));
    // Another job with the same id annuls nobody, and does not say that it did.
    let used = run(&fixture, annul(request(1, &[12, 14]))).await;
    let reason = "refused: this id is already used: the annulment is done";
    assert_eq!(used, (Verdict::Incomplete, reason.to_owned()));
    let other = AnnulmentReason::parse("another reason").unwrap();
    let (_, used) =
        run(&fixture, annul(AnnulmentRequest { reason: other, ..request(1, &people) })).await;
    assert_eq!(
        used,
        "refused: this id is already used by an annulment of another selection or reason"
    );
    assert_eq!(records(&fixture).await, RECORDS + 6);

    // Two of them are annulled by another annulment, which the restoration of the first leaves.
    let again = effect_of(&fixture, annul(request(2, &[0, 2]))).await;
    assert_eq!((again.unchanged, again.changed), (2, 0));
    settle(&fixture, 2).await;
    let planned = effect_of(&fixture, restore(1, true)).await;
    let restored = effect_of(&fixture, restore(1, false)).await;
    assert_eq!((&restored, restored.selected), (&planned, 4));
    settle(&fixture, 4).await;
    assert_eq!(summary(&fixture).await, restored.after);
    check_totals(&fixture, &[0, 2]).await;
    let listed = entry(&fixture, 1).await.unwrap();
    assert_eq!((listed.state, listed.restored.unwrap().people), (AnnulmentState::Restored, 4));
    let refused = run(&fixture, annul(request(1, &people))).await;
    assert_eq!(refused.1, "refused: the annulment has been restored");

    effect_of(&fixture, restore(2, false)).await;
    settle(&fixture, 2).await;
    check_totals(&fixture, &[]).await;
    assert_eq!(totals(&fixture).await.categories, before.categories);
    // Nobody is left to restore.
    assert_eq!(effect_of(&fixture, restore(2, false)).await.selected, 0);
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_people_and_those_of_other_budgets_change_nothing() {
    let mut fixture = world().await;
    let before = totals(&fixture).await;
    // Odd numbers are people of the other budget, and the last has never submitted.
    let effect = effect_of(&fixture, annul(request(1, &[1, 3, 1_000]))).await;
    assert_eq!((effect.unknown, effect.changed), (3, 0));
    settle(&fixture, 3).await;
    assert_eq!(totals(&fixture).await.categories, before.categories);
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_selected_by_network_and_by_ballot() {
    let mut fixture = world().await;
    let at_ms = now_ms() - 60_000;
    let signal = |who: u64, network, ballot, accepted_at_ms| Signal {
        budget: roads(),
        person: person(who),
        accepted_at_ms,
        action: SignalAction::Allocate(BallotDigest(ballot)),
        origin: SignalOrigin {
            network: Some(NetworkDigest(network)),
            agent: None,
            identity: IdentityLevel::Unproven,
        },
    };
    let writer = SqliteSignalWriter::new(&fixture.dir.path().join("signals.db"));
    let signals = [
        signal(0, 7, 1, at_ms),
        signal(2, 7, 2, at_ms + 1),
        signal(2, 7, 1, at_ms + 2),
        signal(4, 7, 2, at_ms + 10),
        signal(6, 8, 1, at_ms),
    ];
    writer.append(&signals).await.unwrap();
    let span = SignalSpan::new(at_ms, at_ms + 10).unwrap();
    let by = |number, selection| annul(AnnulmentRequest { selection, ..request(number, &[0]) });
    let network = AnnulmentSelection::Network { network: NetworkDigest(7), span };
    assert_eq!(effect_of(&fixture, by(1, network)).await.selected, 2);
    settle(&fixture, 2).await;
    check_totals(&fixture, &[0, 2]).await;
    let ballot = AnnulmentSelection::Ballot { ballot: BallotDigest(1), span };
    let effect = effect_of(&fixture, by(2, ballot)).await;
    assert_eq!((effect.selected, effect.unchanged), (3, 2));
    settle(&fixture, 3).await;
    check_totals(&fixture, &[0, 2, 6]).await;
    let nobody = AnnulmentSelection::Network { network: NetworkDigest(9), span };
    let refused = run(&fixture, by(3, nobody)).await;
    assert_eq!(refused, (Verdict::Incomplete, "refused: nobody is selected".to_owned()));
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_annulled_in_order_and_counted_once() {
    let mut fixture = world().await;
    let part = |number, is_last, people: &[u64]| {
        annul(AnnulmentRequest { part: AnnulmentPart { number, is_last }, ..request(1, people) })
    };
    let refused = run(&fixture, part(1, true, &[2])).await;
    assert_eq!(refused.1, "refused: an earlier part of the annulment is not done");
    for _ in 0..2 {
        effect_of(&fixture, part(0, false, &[0, 2])).await;
    }
    assert_eq!(entry(&fixture, 1).await.unwrap().state, AnnulmentState::Running);
    effect_of(&fixture, part(1, true, &[4])).await;
    let listed = entry(&fixture, 1).await.unwrap();
    assert_eq!((listed.state, listed.people, listed.parts), (AnnulmentState::Done, 3, 2));
    settle(&fixture, 3).await;
    check_totals(&fixture, &[0, 2, 4]).await;
    fixture.stop_processor().await;
}

/// Fails until it is repaired, and then loses the response of its first append.
struct FaultyWriter {
    log: Arc<dyn LogWriter>,
    is_repaired: AtomicBool,
    has_lost: AtomicBool,
}

#[async_trait]
impl LogWriter for FaultyWriter {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>> {
        if !self.is_repaired.load(Ordering::Relaxed) {
            return records.iter().map(|_| Err(AppendError::Sealed)).collect();
        }
        let results = self.log.append(records).await;
        if self.has_lost.swap(true, Ordering::Relaxed) {
            return results;
        }
        results.iter().map(|_| Err(AppendError::Unknown("lost".into()))).collect()
    }

    fn available(&self) -> Result<(), AppendError> {
        self.log.available()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_annulment_is_resumed_and_people_whose_record_is_repeated_count_once() {
    let mut fixture = world().await;
    fixture.stop_processor().await;
    let log = Arc::clone(&fixture.writer);
    let (is_repaired, has_lost) = (AtomicBool::new(false), AtomicBool::new(false));
    let writer = Arc::new(FaultyWriter { log, is_repaired, has_lost });
    fixture.writer = Arc::clone(&writer) as _;
    fixture.start_processor().await;
    let job = submit_job(&fixture, annul(request(1, &[0, 2]))).await;
    let is_appending = |job: &Job| job.progress.message.as_str().contains("records appended");
    wait_until(&fixture, job, is_appending).await;
    let cancel = |job: &Job| job::cancel(job, job.changed_at_ms);
    update_job(fixture.store.as_ref(), job, cancel).await.unwrap();
    let ended = wait_until(&fixture, job, Job::is_ended).await;
    assert_eq!(ended.state.name(), "cancelled");
    assert_eq!(entry(&fixture, 1).await.unwrap().state, AnnulmentState::Cancelled);
    writer.is_repaired.store(true, Ordering::Relaxed);
    effect_of(&fixture, annul(request(1, &[0, 2]))).await;
    assert!(writer.has_lost.load(Ordering::Relaxed));
    assert_eq!(entry(&fixture, 1).await.unwrap().state, AnnulmentState::Done);
    settle(&fixture, 4).await;
    check_totals(&fixture, &[0, 2]).await;
    effect_of(&fixture, restore(1, false)).await;
    settle(&fixture, 2).await;
    check_totals(&fixture, &[]).await;
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_budget_or_one_without_submissions_is_refused() {
    let mut fixture = world().await;
    let empty = Budget { frozen: false, ..Budget::clone(&definition("empty")) };
    let define = |current: Option<&Budget>| define_if_absent(current, &empty);
    fixture.stop_processor().await;
    control(&fixture).change(&empty.id, &define).await.unwrap();
    fixture.start_processor().await;
    let of = |id: &str| annul(AnnulmentRequest { budget: budget(id), ..request(1, &[0]) });
    let refused = run(&fixture, of("empty")).await;
    assert_eq!(refused, (Verdict::Incomplete, "refused: the budget has no submissions".to_owned()));
    let id = submit_job(&fixture, of("unknown-budget")).await;
    assert_eq!(wait_until(&fixture, id, Job::is_ended).await.state.name(), "dead");
    assert!(fixture.store.jobs().await.unwrap().len() == 2);
    fixture.stop_processor().await;
}

/// A key is shown nowhere.
#[test]
fn a_job_is_named_without_its_people() {
    let kind = annul(request(1, &[0, 2]));
    assert_eq!(kind.to_string(), "annul (roads, 2 named)");
    let digits: String = String::from(PersonKeys::new(vec![person(0)]).unwrap());
    assert!(!format!("{kind:?}").contains(&digits) && PersonKey::BYTES == 16);
}
