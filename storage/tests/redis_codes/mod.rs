//! One-time codes in Redis: processes agree, everything expires, and outages are no pass.

use std::sync::Arc;

use redis::{AsyncCommands, Script};
use schemas::redis::{ISSUE_CODE_SCRIPT, issue_code_arguments, mailbox_key, one_time_code_key};
use schemas::{CODE_LIFETIME, MAIL_LIMITS};
use storage::one_time_codes::IssueOutcome;
use storage::one_time_codes::redis::RedisOneTimeCodes;

use crate::one_time_codes::{Fixture, issue, new_hash, new_holder, race};
use crate::redis_server::Server;
use crate::wait::{TEST_TIMEOUT, until};

async fn store(server: &Server) -> Fixture {
    Arc::new(RedisOneTimeCodes::connect(&server.config()).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_agree_that_a_code_is_used_once() {
    let server = Server::running().await;
    let stores = [store(&server).await, store(&server).await];
    for _ in 0..20 {
        let holder = new_holder();
        let code = issue(&stores[0], &holder).await;
        assert_eq!(race(&stores, holder, code).await, 1);
    }
    let holder = new_holder();
    let code = issue(&stores[0], &holder).await;
    assert_eq!(race(&stores, holder, new_hash()).await, 0);
    assert_eq!(stores[1].redeem(&holder, &code, None).await, Ok(false), "five tries over both");
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_and_mails_expire_and_only_keyed_hashes_are_stored() {
    let server = Server::running().await;
    let codes = store(&server).await;
    let holder = new_holder();
    let code = issue(&codes, &holder).await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let (key, mailbox) = (one_time_code_key(&holder.slot), mailbox_key(&holder.mailbox));
    let mut keys: Vec<String> = redis.keys("*").await.unwrap();
    keys.sort();
    assert_eq!(keys, [key.clone(), mailbox.clone()]);
    let longest = MAIL_LIMITS.iter().map(|limit| limit.window).max().unwrap();
    for (key, lifetime) in [(&key, CODE_LIFETIME), (&mailbox, longest)] {
        let left: i64 = redis.pttl(key).await.unwrap();
        assert!(left > 0 && left <= lifetime.as_millis() as i64, "{left}");
    }
    let stored: Vec<String> = redis.hvals(&key).await.unwrap();
    assert_eq!(stored, [code.to_hex(), "5".to_owned()]);
    // A wrong try does not prolong a code, and an expired one is wrong.
    let _: () = redis.pexpire(&key, 60_000).await.unwrap();
    assert_eq!(codes.redeem(&holder, &new_hash(), None).await, Ok(false));
    assert!(redis.pttl::<_, i64>(&key).await.unwrap() <= 60_000);
    let _: () = redis.del(&key).await.unwrap();
    assert_eq!(codes.redeem(&holder, &code, None).await, Ok(false));
    assert!(!redis.exists::<_, bool>(&key).await.unwrap(), "a try created a key");
}

/// The script with a clock that the test sets, in seconds.
fn script_at(now_s: u64) -> Script {
    let clock = r#"redis.call("TIME")"#;
    assert!(ISSUE_CODE_SCRIPT.contains(clock));
    Script::new(&ISSUE_CODE_SCRIPT.replace(clock, &format!("{{{now_s}, 0}}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_gets_three_mails_in_ten_minutes_and_ten_in_a_day() {
    let server = Server::running().await;
    let client = redis::Client::open(server.url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let (holder, begin) = (new_holder(), 1_800_000_000);
    let mut sent = Vec::new();
    // One request a minute, for two days.
    for minute in 0..2 * 24 * 60 {
        let script = script_at(begin + 60 * minute);
        let mut call = script.prepare_invoke();
        call.key(one_time_code_key(&holder.slot)).key(mailbox_key(&holder.mailbox));
        issue_code_arguments(&new_hash()).into_iter().for_each(|argument| {
            call.arg(argument);
        });
        if call.invoke_async(&mut redis).await.unwrap() {
            sent.push(minute);
        }
    }
    let first_day = [0, 1, 2, 10, 11, 12, 20, 21, 22, 30];
    let day = 24 * 60;
    let second_day = first_day.map(|minute| minute + day);
    assert_eq!(sent, [first_day, second_day].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nothing_is_issued_and_no_code_is_right() {
    let mut server = Server::running().await;
    let codes = store(&server).await;
    let holder = new_holder();
    let code = issue(&codes, &holder).await;
    server.kill();
    assert!(codes.issue(&holder, &new_hash()).await.is_err());
    assert!(codes.redeem(&holder, &code, None).await.is_err());
    server.start().await;
    // Redis has restarted empty: whoever waits for a mail asks again.
    until("the store is reconnected", TEST_TIMEOUT, async || {
        codes.redeem(&holder, &code, None).await == Ok(false)
    })
    .await;
    assert_eq!(codes.issue(&holder, &code).await, Ok(IssueOutcome::Issued));
    assert_eq!(codes.redeem(&holder, &code, None).await, Ok(true));
}
