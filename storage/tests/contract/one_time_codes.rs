//! The contract of every store of one-time codes.

use std::sync::Arc;

use schemas::{CodeHolder, KeyedHash, MAX_CODE_TRIES, MAX_CODE_TRIES_OF_CLIENT};
use storage::one_time_codes::{IssueOutcome, OneTimeCodes};
use uuid::Uuid;

pub type Fixture = Arc<dyn OneTimeCodes>;

macro_rules! one_time_codes_contract {
    ($fixture:expr) => {
        crate::contract::properties! { one_time_codes, $fixture;
            the_right_code_is_right_once,
            a_code_survives_all_but_one_of_its_wrong_tries,
            the_last_wrong_try_voids_a_code,
            one_client_uses_up_its_own_tries_and_voids_no_code,
            a_new_code_gives_a_client_new_tries,
            a_code_of_nobody_is_wrong,
            a_new_code_replaces_the_old_one_and_its_tries,
            a_mailbox_gets_three_mails_over_all_budgets_and_a_throttled_request_changes_nothing,
            of_many_concurrent_tries_of_the_right_code_one_succeeds,
            of_many_concurrent_wrong_tries_no_more_than_the_limit_count,
        }
    };
}
pub(crate) use one_time_codes_contract;

pub fn new_hash() -> KeyedHash {
    let (high, low) = (Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes());
    KeyedHash::from_bytes(std::array::from_fn(|index| match high.get(index) {
        Some(byte) => *byte,
        None => low[index - 16],
    }))
}

pub fn new_holder() -> CodeHolder {
    CodeHolder { slot: new_hash(), mailbox: new_hash() }
}

/// Issues a new code.
pub async fn issue(codes: &Fixture, holder: &CodeHolder) -> KeyedHash {
    let code = new_hash();
    assert_eq!(codes.issue(holder, &code).await, Ok(IssueOutcome::Issued));
    code
}

async fn is_right(codes: &Fixture, holder: &CodeHolder, code: &KeyedHash) -> bool {
    codes.redeem(holder, code, None).await.unwrap()
}

pub async fn the_right_code_is_right_once(codes: &Fixture) {
    let holder = new_holder();
    let code = issue(codes, &holder).await;
    assert!(is_right(codes, &holder, &code).await);
    assert!(!is_right(codes, &holder, &code).await);
}

pub async fn a_code_survives_all_but_one_of_its_wrong_tries(codes: &Fixture) {
    let holder = new_holder();
    let code = issue(codes, &holder).await;
    for _ in 1..MAX_CODE_TRIES {
        assert!(!is_right(codes, &holder, &new_hash()).await);
    }
    assert!(is_right(codes, &holder, &code).await);
}

pub async fn the_last_wrong_try_voids_a_code(codes: &Fixture) {
    let holder = new_holder();
    let code = issue(codes, &holder).await;
    for _ in 0..MAX_CODE_TRIES {
        assert!(!is_right(codes, &holder, &new_hash()).await);
    }
    assert!(!is_right(codes, &holder, &code).await);
    // Its owner asks for a new one, and is let in.
    let code = issue(codes, &holder).await;
    assert!(is_right(codes, &holder, &code).await);
}

pub async fn one_client_uses_up_its_own_tries_and_voids_no_code(codes: &Fixture) {
    let (holder, stranger, owner) = (new_holder(), new_hash(), new_hash());
    let code = issue(codes, &holder).await;
    for _ in 0..10 {
        assert_eq!(codes.redeem(&holder, &new_hash(), Some(&stranger)).await, Ok(false));
    }
    assert_eq!(codes.redeem(&holder, &code, Some(&stranger)).await, Ok(false));
    // Of five tries the stranger has taken three.
    assert_eq!(codes.redeem(&holder, &new_hash(), Some(&owner)).await, Ok(false));
    assert_eq!(codes.redeem(&holder, &code, Some(&owner)).await, Ok(true));
}

pub async fn a_new_code_gives_a_client_new_tries(codes: &Fixture) {
    let (holder, client) = (new_holder(), new_hash());
    issue(codes, &holder).await;
    for _ in 0..MAX_CODE_TRIES_OF_CLIENT {
        assert_eq!(codes.redeem(&holder, &new_hash(), Some(&client)).await, Ok(false));
    }
    let code = issue(codes, &holder).await;
    assert_eq!(codes.redeem(&holder, &code, Some(&client)).await, Ok(true));
}

pub async fn a_code_of_nobody_is_wrong(codes: &Fixture) {
    let holder = new_holder();
    assert!(!is_right(codes, &holder, &new_hash()).await);
    let code = issue(codes, &holder).await;
    assert!(!is_right(codes, &new_holder(), &code).await);
    assert!(is_right(codes, &holder, &code).await);
}

pub async fn a_new_code_replaces_the_old_one_and_its_tries(codes: &Fixture) {
    let holder = new_holder();
    let old = issue(codes, &holder).await;
    for _ in 1..MAX_CODE_TRIES {
        is_right(codes, &holder, &new_hash()).await;
    }
    let new = issue(codes, &holder).await;
    assert!(!is_right(codes, &holder, &old).await);
    assert!(is_right(codes, &holder, &new).await);
}

pub async fn a_mailbox_gets_three_mails_over_all_budgets_and_a_throttled_request_changes_nothing(
    codes: &Fixture,
) {
    let mailbox = new_hash();
    let in_budget = || CodeHolder { slot: new_hash(), mailbox };
    let (first, second) = (in_budget(), in_budget());
    issue(codes, &first).await;
    issue(codes, &second).await;
    let code = issue(codes, &first).await;
    for holder in [first, second, in_budget()] {
        let replacing = new_hash();
        assert_eq!(codes.issue(&holder, &replacing).await, Ok(IssueOutcome::Throttled));
        assert!(!is_right(codes, &holder, &replacing).await);
    }
    assert!(is_right(codes, &first, &code).await);
    issue(codes, &new_holder()).await;
}

/// Tries a code at once from many tasks, and returns how often it was right.
pub async fn race(stores: &[Fixture], holder: CodeHolder, code: KeyedHash) -> usize {
    let tries = (0..32).map(|index| {
        let codes = Arc::clone(&stores[index % stores.len()]);
        tokio::spawn(async move { codes.redeem(&holder, &code, None).await.unwrap() })
    });
    let mut right = 0;
    for outcome in tries.collect::<Vec<_>>() {
        right += usize::from(outcome.await.unwrap());
    }
    right
}

pub async fn of_many_concurrent_tries_of_the_right_code_one_succeeds(codes: &Fixture) {
    let holder = new_holder();
    let code = issue(codes, &holder).await;
    assert_eq!(race(&[Arc::clone(codes)], holder, code).await, 1);
}

pub async fn of_many_concurrent_wrong_tries_no_more_than_the_limit_count(codes: &Fixture) {
    let holder = new_holder();
    let code = issue(codes, &holder).await;
    assert_eq!(race(&[Arc::clone(codes)], holder, new_hash()).await, 0);
    assert!(!is_right(codes, &holder, &code).await);
}
