use super::*;
use crate::control::{close, define, forget, freeze};
use schemas::{PersonSalt, PersonSaltState};

const FUTURE: &str = include_str!("../../../../schemas/tests/golden/future_definition.json");

fn rows(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut select =
        connection.prepare("SELECT definition FROM history ORDER BY sequence").unwrap();
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn an_erased_salt_is_in_no_file_and_other_budgets_stay() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("definitions.db");
    let ours = SqliteControlTopic::open(&path).unwrap();
    let rival = SqliteControlTopic::open(&path).unwrap();
    let named = |number: u8, revision: u8| Budget {
        id: BudgetId::parse(&format!("b-{number}")).unwrap(),
        name: format!("{} {revision}", "x".repeat(usize::from(revision) * 40)),
        closes_at: Some("2027-01-02T00:00:00Z".parse().unwrap()),
        person_salt: PersonSaltState::Salted(PersonSalt::from_bytes([number; 32])),
        ..schemas::default_budgets().unwrap().remove(0)
    };
    // Many pages, with the definitions of all budgets among each other.
    for revision in 1..=8 {
        for number in 1..=5 {
            let wanted = named(number, revision);
            ours.change(&wanted.id, &|current| define(current, &wanted)).await.unwrap();
        }
    }
    let has_salt = |number: u8| {
        let digits = format!("{number:02x}").repeat(32);
        let files = std::fs::read_dir(dir.path()).unwrap();
        let files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
        files.filter(|bytes| bytes.windows(64).any(|it| it == digits.as_bytes())).count() > 0
    };
    assert!(has_salt(3));
    let wanted = named(3, 8);
    let closed = ours.change(&wanted.id, &|current| close(current, &wanted)).await.unwrap();
    let at = "2027-02-01T00:00:00Z".parse().unwrap();
    let decide = |current: Option<&Budget>| forget(current, closed.closing.unwrap(), at);
    rival.change(&wanted.id, &decide).await.unwrap();
    assert!(has_salt(3), "a former definition has it");
    let erasure = rival.erase_former_definitions(&wanted.id).await.unwrap();
    assert_eq!((erasure, has_salt(3)), (Erasure::Erased, false));
    assert!([1, 2, 4, 5].into_iter().all(has_salt));
    // Both go on, and a later start knows the same.
    let renamed = named(1, 9);
    ours.change(&renamed.id, &|current| define(current, &renamed)).await.unwrap();
    let anew = SqliteControlTopic::open(&path).unwrap();
    assert_eq!(anew.catalog(), ours.confirmed().await.unwrap());
    let forgotten = anew.catalog().get("b-3").unwrap().person_salt.forgotten_at();
    assert_eq!((forgotten, anew.catalog().iter().count()), (Some(at), 5));
}

/// Returns a budget with this salt that closes at the beginning of 2027.
fn salted(id: &str, salt: u8) -> Budget {
    Budget {
        id: BudgetId::parse(id).unwrap(),
        closes_at: Some("2027-01-02T00:00:00Z".parse().unwrap()),
        person_salt: PersonSaltState::Salted(PersonSalt::from_bytes([salt; 32])),
        ..schemas::default_budgets().unwrap().remove(0)
    }
}

/// Defines, closes and forgets a budget, without erasing its former definitions.
async fn define_and_forget(topic: &SqliteControlTopic, wanted: &Budget) {
    let id = &wanted.id;
    topic.change(id, &|current| define(current, wanted)).await.unwrap();
    let closed = topic.change(id, &|current| close(current, wanted)).await.unwrap();
    let at = "2027-02-01T00:00:00Z".parse().unwrap();
    let fence = closed.closing.unwrap();
    topic.change(id, &|current| forget(current, fence, at)).await.unwrap();
}

fn has_salt(dir: &Path, salt: u8) -> bool {
    let digits = format!("{salt:02x}").repeat(32);
    let files = std::fs::read_dir(dir).unwrap();
    let files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.filter(|bytes| bytes.windows(64).any(|it| it == digits.as_bytes())).count() > 0
}

#[tokio::test]
async fn a_change_from_before_an_erasure_takes_no_number_that_the_erasure_has_freed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("definitions.db");
    let ours = SqliteControlTopic::open(&path).unwrap();
    let rival = SqliteControlTopic::open(&path).unwrap();
    let stale = ours.state.history.load_full();
    let gone = salted("gone", 1);
    define_and_forget(&rival, &gone).await;
    rival.erase_former_definitions(&gone.id).await.unwrap();
    let before = rows(&path);
    let late = Arc::new(Budget { revision: 1, ..salted("late", 2) });
    let json = StoredBudget::document(&late).unwrap();
    let catalog = stale.catalog.with(Arc::clone(&late));
    assert_eq!(ours.append(&stale, catalog, json).await, Ok(false), "number 1 is free");
    assert_eq!(rows(&path), before);
    // It is decided again, after the end.
    ours.change(&late.id, &|current| define(current, &late)).await.unwrap();
    assert_eq!(rows(&path).len(), 2);
    assert_eq!(rival.confirmed().await.unwrap(), ours.confirmed().await.unwrap());
}

#[tokio::test]
async fn an_erasure_that_was_interrupted_is_finished_at_the_next_start() {
    // Killed before the erasure, and between the deletion and the end of it.
    for has_deleted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("definitions.db");
        let topic = SqliteControlTopic::open(&path).unwrap();
        let kept = salted("kept", 2);
        topic.change(&kept.id, &|current| define(current, &kept)).await.unwrap();
        let gone = salted("gone", 1);
        define_and_forget(&topic, &gone).await;
        // Keeps the files as a killed process leaves them.
        let copy = tempfile::tempdir().unwrap();
        if has_deleted {
            let id = gone.id.clone();
            let delete = move |_: &State, connection: &mut Connection| {
                erasure::delete_former(connection, &id)
            };
            topic.on_thread(delete).await.unwrap();
        }
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
        assert!(has_salt(copy.path(), 1), "a former definition has it");
        let anew = SqliteControlTopic::open(&copy.path().join("definitions.db")).unwrap();
        assert!(!has_salt(copy.path(), 1) && has_salt(copy.path(), 2));
        assert_eq!(anew.catalog(), topic.catalog());
        let pending = anew.on_thread(|_, connection| erasure::unfinished(connection)).await;
        assert_eq!(pending, Ok(BTreeSet::new()));
    }
}

#[tokio::test]
async fn a_definition_of_a_newer_release_is_served_and_never_written_over() {
    let unreadable = FUTURE.replace(r#""name":"Trees""#, r#""name":{"en":"Trees"}"#);
    for (future, is_served) in [(FUTURE, true), (unreadable.as_str(), false)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("definitions.db");
        let topic = SqliteControlTopic::open(&path).unwrap();
        // Another process, of a newer release, writes while this one runs.
        let insert = "INSERT INTO history (sequence, definition) VALUES (1, ?1)";
        Connection::open(&path).unwrap().execute(insert, [future]).unwrap();
        let id = BudgetId::parse("parks").unwrap();
        let wanted = Budget { id: id.clone(), ..schemas::default_budgets().unwrap().remove(0) };
        let defined = topic.change(&id, &|current| define(current, &wanted)).await;
        assert_eq!(defined, Err(ChangeRefused::NotUnderstood.into()));
        assert_eq!(topic.change(&id, &freeze).await, Err(ChangeRefused::NotUnderstood.into()));
        for topic in [topic, SqliteControlTopic::open(&path).unwrap()] {
            assert_eq!(topic.catalog().get("parks").is_some(), is_served);
            assert_eq!(topic.catalog().is_unreadable("parks"), !is_served);
        }
        assert_eq!(rows(&path), [future]);
        // Other budgets are changed as always.
        let topic = SqliteControlTopic::open(&path).unwrap();
        let other = Budget { id: BudgetId::parse("other").unwrap(), ..wanted };
        topic.change(&other.id, &|current| define(current, &other)).await.unwrap();
        assert_eq!(rows(&path).len(), 2);
    }
}
