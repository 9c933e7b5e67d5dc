//! Who may read whose allocation, where the service vouches for persons.

use std::time::Duration;

use identity::{CodeKey, Serial};
use runtime::admin::{Role, TokensFile};
use runtime::clock::now_ms;
use runtime::principal::{Session, SessionKey};
use schemas::{Budget, IdentityRule, PersonId, StoredRevocations, partition_for};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::fakes::{id, partitions};
use crate::provider;
use crate::test_server::*;

const ME: &str = "/v1/budgets/town/submissions/me";
const SUBMITTER: &str = "ssssssssssssssssssssssssssssssss";
const VIEWER: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";
const WEBSITE: &str = "wwwwwwwwwwwwwwwwwwwwwwwwwwwwwwww";
const DISPLAY: &str = "dddddddddddddddddddddddddddddddd";
const COOKIE: (&str, &str) = ("cookie", "allocator_person=a-AAAAAAAAAAAAAAAAAAAAAA");

/// A server with a tokens file and an identity provider.
fn server(rule: IdentityRule) -> (TestServer, TempDir) {
    server_with(rule, &[])
}

fn server_with(rule: IdentityRule, settings: &[(&str, &str)]) -> (TestServer, TempDir) {
    let dir = TempDir::new().unwrap();
    let (tokens, keys) = (dir.path().join("tokens"), dir.path().join("keys.json"));
    let lines = [
        TokensFile::line("import", Role::Submitter, SUBMITTER),
        TokensFile::line("vera", Role::Viewer, VIEWER),
        TokensFile::line("website", Role::Submitter, WEBSITE) + " organisation=town",
        TokensFile::line("display", Role::Submitter, DISPLAY) + " organisation=town",
    ];
    std::fs::write(&tokens, lines.join("\n")).unwrap();
    std::fs::write(&keys, provider::key_set()).unwrap();
    let own = [
        ("admin.tokens_file", tokens.to_str().unwrap()),
        ("identity.token_issuer", provider::ISSUER),
        ("identity.token_keys", keys.to_str().unwrap()),
    ];
    let server = TestServer::with_settings(&[&own, settings].concat());
    server.definitions.put(Budget { identity: rule, ..budget("town") });
    (server, dir)
}

fn put(server: &TestServer, issuer: &str, subject: &str) {
    let person = PersonId::of_issuer(issuer, subject).unwrap();
    let key = server.key("town", &person);
    let partition = partition_for(&key, partitions());
    server.store.put_row(partition, row(key, "town", 3, &[4_000, 6_000]));
}

fn session(server: &TestServer, method: &str, subject: &str, budget: &str) -> String {
    let key = SessionKey::new(&server.person_secret.derived_secret("sessions"));
    let now_s = now_ms() / 1_000;
    let session = Session { method, subject, budget, begins_at_s: now_s, ends_at_s: now_s + 1_000 };
    format!("Bearer {}", key.sign(&session))
}

async fn status(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> u16 {
    server.get_with(path, headers).await.status.as_u16()
}

#[tokio::test(start_paused = true)]
async fn a_person_reads_the_own_allocation_alone_and_services_read_everyones() {
    let (server, _dir) = server(IdentityRule::Code);
    let (own, other) = (Serial::new(1).unwrap().to_string(), Serial::new(2).unwrap().to_string());
    put(&server, "code", &own);
    put(&server, "code", &other);
    let path = |serial: &str| format!("/v1/budgets/town/submissions/{serial}");
    let token = session(&server, "code", &own, "town");
    let headers = [("authorization", token.as_str())];
    let got = server.get_with(ME, &headers).await;
    assert_eq!((got.status.as_u16(), got.header("cache-control")), (200, "private, no-store"));
    assert_eq!(status(&server, &path(&own), &headers).await, 200);
    assert_eq!(status(&server, &path(&other), &headers).await, 403);
    assert_eq!(status(&server, &path("nobody"), &headers).await, 403, "whether somebody exists");
    for (path, expected) in [(ME, 401), (&*path(&own), 401)] {
        assert_eq!(status(&server, path, &[]).await, expected);
    }
    let bearer = |token| format!("Bearer {token}");
    let (submitter, viewer) = (bearer(SUBMITTER), bearer(VIEWER));
    assert_eq!(status(&server, &path(&other), &[("authorization", &submitter)]).await, 200);
    assert_eq!(status(&server, ME, &[("authorization", &submitter)]).await, 403);
    assert_eq!(status(&server, &path(&other), &[("authorization", &viewer)]).await, 403);
    let elsewhere = session(&server, "code", &own, "park");
    assert_eq!(status(&server, ME, &[("authorization", &elsewhere)]).await, 403);
    let otherwise = session(&server, "anonymous", &own, "town");
    assert_eq!(status(&server, ME, &[("authorization", &otherwise)]).await, 403);
}

#[tokio::test(start_paused = true)]
async fn a_browser_is_the_same_person_on_the_page_and_under_v1() {
    let (server, _dir) = server(IdentityRule::Anonymous);
    put(&server, "anonymous", "a-AAAAAAAAAAAAAAAAAAAAAA");
    let script = ("accept", "application/json");
    let mine = server.get_with("/budgets/town/mine", &[COOKIE, script]).await;
    let own = server.get_with(ME, &[COOKIE]).await;
    assert_eq!((mine.status.as_u16(), &mine.text), (200, &own.text));
    let page = server.get_with("/budgets/town/confirm?c.health=100", &[]).await;
    let paths = page.headers.get_all("set-cookie").iter().count();
    assert_eq!(paths, 4, "two for the pages, and two for the routes under /v1");
}

#[tokio::test(start_paused = true)]
async fn where_codes_count_the_page_asks_for_one_and_with_a_session_for_that_of_another_person() {
    let (server, _dir) = server(IdentityRule::Code);
    let field = "name=\"code\"";
    let confirm = "/budgets/town/confirm?c.health=100";
    for path in [confirm, "/budgets/town/mine"] {
        let page = server.get(path).await;
        assert!(page.text.contains(field), "{path}");
        assert!(!page.headers.contains_key("set-cookie"), "{path}");
    }
    let script = [("accept", "application/json")];
    assert_eq!(status(&server, "/budgets/town/mine", &script).await, 204);
    let serial = Serial::new(1).unwrap();
    put(&server, "code", &serial.to_string());
    let token = session(&server, "code", &serial.to_string(), "town");
    let cookie = token.replace("Bearer ", "allocator_session=");
    let cookie = [("cookie", cookie.as_str())];
    let another = server.get_with(confirm, &cookie).await.text;
    assert!(another.contains(field) && another.contains("Another person?"), "{another}");
    assert!(!another.contains("required"), "{another}");
    let mine = server.get_with("/budgets/town/mine", &cookie).await;
    assert!(!mine.text.contains(field) && mine.text.contains("Withdraw"), "{}", mine.text);
    let sign_out = "action=\"/budgets/town/session/end\"";
    assert!(another.contains(sign_out) && mine.text.contains(sign_out));
    for path in [confirm, "/budgets/town/mine"] {
        assert!(!server.get(path).await.text.contains(sign_out), "nobody is signed in");
    }
    let code = CodeKey::new(&server.person_secret, &id("town")).code(serial);
    assert!(!mine.text.contains(&code));
    let budget = server.get("/budgets/town").await;
    assert!(budget.text.contains("\"sends\":\"form\"") && !budget.text.contains(field));
}

#[tokio::test(start_paused = true)]
async fn where_mailboxes_count_the_pages_ask_to_sign_in_and_a_session_reads_its_own_allocation() {
    let (server, _dir) = server(IdentityRule::Email);
    let (confirm, mine) = ("/budgets/town/confirm?c.health=100", "/budgets/town/mine");
    let address = "zebra@example.org";
    let asked = format!("allocator_email={address}");
    for path in [confirm, mine] {
        let page = server.get(path).await;
        assert!(page.text.contains("name=\"email\"") && !page.text.contains("name=\"otp\""));
        assert!(!page.text.contains("action=\"/budgets/town/submit\""), "{}", page.text);
        let page = server.get_with(path, &[("cookie", &asked)]).await;
        assert!(page.text.contains("name=\"otp\"") && page.text.contains(address), "{path}");
        assert_eq!(page.header("cache-control"), "private, no-store", "{path}");
        let forged = server.get_with(path, &[("cookie", "allocator_email=<b>@example.org")]).await;
        assert!(!forged.text.contains("name=\"otp\""), "{path}");
    }
    assert!(server.get(confirm).await.text.contains("name=\"c.health\" value=\"100\""));
    put(&server, "email", address);
    put(&server, "email", "okapi@example.org");
    let token = session(&server, "email", address, "town");
    let headers = [("authorization", token.as_str())];
    assert_eq!(status(&server, ME, &headers).await, 200);
    let path = |name: &str| format!("/v1/budgets/town/submissions/{name}");
    assert_eq!(status(&server, &path("Zebra+x@Example.org"), &headers).await, 200);
    for other in ["okapi@example.org", "nobody@example.org", "nobody"] {
        assert_eq!(status(&server, &path(other), &headers).await, 403, "{other}");
    }
    let submitter = format!("Bearer {SUBMITTER}");
    let headers = [("authorization", submitter.as_str())];
    assert_eq!(status(&server, &path("OKAPI@example.org"), &headers).await, 200);
    assert_eq!(status(&server, &path("nobody"), &headers).await, 400);
    let cookie = token.replace("Bearer ", "allocator_session=");
    let cookie = [("cookie", cookie.as_str())];
    let page = server.get_with(confirm, &cookie).await.text;
    assert!(page.contains("action=\"/budgets/town/submit\"") && page.contains("session/end"));
    assert!(!page.contains("name=\"email\"") && !page.contains(address), "{page}");
    assert!(server.get_with(mine, &cookie).await.text.contains("Withdraw"));
    let budget = server.get("/budgets/town").await;
    assert!(budget.text.contains("\"sends\":\"form\""));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_code_reads_nothing_and_its_page_asks_for_a_code() {
    let (server, _dir) = server(IdentityRule::Code);
    let serials = [1, 2].map(|number| Serial::new(number).unwrap().to_string());
    for serial in &serials {
        put(&server, "code", serial);
    }
    let tokens = [0, 1].map(|index| session(&server, "code", &serials[index], "town"));
    server.revoked.send_modify(|revoked| {
        let stored = StoredRevocations::Understood("2".parse().unwrap());
        assert!(revoked.add(&id("town"), stored));
    });
    for (token, expected) in tokens.iter().zip([200, 401]) {
        let cookie = token.replace("Bearer ", "allocator_session=");
        for headers in [("authorization", token.as_str()), ("cookie", cookie.as_str())] {
            assert_eq!(status(&server, ME, &[headers]).await, expected);
        }
        let page = server.get_with("/budgets/town/mine", &[("cookie", &cookie)]).await.text;
        assert_eq!(page.contains("name=\"code\""), expected == 401, "{page}");
        assert_eq!(page.contains("/session/end"), expected == 200, "{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_tokens_are_limited_by_address_and_lock_no_right_one_out() {
    let (server, _dir) = server(IdentityRule::Code);
    let serial = Serial::new(1).unwrap().to_string();
    put(&server, "code", &serial);
    let client = ("x-forwarded-for", "192.0.2.1");
    let mut statuses = Vec::new();
    for path in [ME, "/v1/budgets/town/submissions/00001"].iter().cycle().take(13) {
        let headers = [("authorization", "Bearer wrong"), client];
        statuses.push(status(&server, path, &headers).await);
    }
    assert_eq!(statuses, [[401; 10].as_slice(), &[429; 3]].concat());
    let right = session(&server, "code", &serial, "town");
    assert_eq!(status(&server, ME, &[("authorization", &right), client]).await, 200);
    // Administrators' routes count the same failures, and a right token passes there too.
    let whoami = "/v1/admin/whoami";
    assert_eq!(status(&server, whoami, &[("authorization", "Bearer wrong"), client]).await, 429);
    let viewer = format!("Bearer {VIEWER}");
    assert_eq!(status(&server, whoami, &[("authorization", &viewer), client]).await, 200);
    let elsewhere = ("x-forwarded-for", "192.0.2.2");
    assert_eq!(status(&server, ME, &[("authorization", "Bearer wrong"), elsewhere]).await, 401);
}

#[tokio::test]
async fn reads_of_one_organisation_share_a_limit() {
    let limit = ("limits.extra", "group organisation fixed-window 2/1d on=read");
    let (server, _dir) = server_with(IdentityRule::Token, &[limit]);
    put(&server, provider::ISSUER, "s-1");
    tokio::spawn(server.authorizer.clone().run(CancellationToken::new()));
    let token = |subject: &str, organisation: &str| {
        let mut claims = provider::claims(now_ms() / 1_000);
        claims["sub"] = subject.into();
        claims["organisation"] = organisation.into();
        format!("Bearer {}", provider::signed(&claims))
    };
    let read = async |token: &str| {
        let client = ("x-forwarded-for", "192.0.2.1");
        status(&server, ME, &[("authorization", token), client]).await
    };
    let warm_up = token("s-1", "another");
    let mut answer = read(&warm_up).await;
    for _ in 0..6_000 {
        if answer != 503 {
            break;
        }
        // The background task announces nothing: a pause between two tries.
        tokio::time::sleep(Duration::from_millis(10)).await;
        answer = read(&warm_up).await;
    }
    assert_ne!(answer, 503, "the keys of the identity provider were not read");
    let (one, two) = (token("s-1", "school"), token("s-2", "school"));
    assert_eq!([read(&one).await, read(&two).await], [200, 404]);
    assert_eq!([read(&one).await, read(&two).await], [429, 429]);
    assert_eq!(read(&token("s-1", "library")).await, 200);
}

#[tokio::test(start_paused = true)]
async fn services_of_one_organisation_share_a_thousand_reads_an_hour() {
    let (server, _dir) = server(IdentityRule::Token);
    let read = async |token: &str| {
        let token = format!("Bearer {token}");
        let remote = ("x-forwarded-for", "192.0.2.1");
        status(&server, "/v1/budgets", &[("authorization", &token), remote]).await
    };
    for _ in 0..1_000 {
        assert_eq!(read(WEBSITE).await, 200);
    }
    assert_eq!([read(WEBSITE).await, read(DISPLAY).await], [429, 429]);
    // Neither a service without an organisation nor an administrator is counted.
    assert_eq!([read(SUBMITTER).await, read(VIEWER).await], [200, 200]);
}

#[tokio::test(start_paused = true)]
async fn where_tokens_count_the_page_shows_a_form_that_cannot_be_sent() {
    let (server, _dir) = server(IdentityRule::Token);
    let page = server.get("/budgets/town").await;
    assert!(page.text.contains("<fieldset disabled>") && page.text.contains("\"sends\":\"token\""));
    assert_eq!(status(&server, "/budgets/town/confirm?c.health=100", &[]).await, 303);
}

#[tokio::test(start_paused = true)]
async fn no_forged_token_reads_an_allocation() {
    let (server, _dir) = server(IdentityRule::Token);
    put(&server, provider::ISSUER, "s-1");
    tokio::spawn(server.authorizer.clone().run(CancellationToken::new()));
    let now_s = now_ms() / 1_000;
    let good = format!("Bearer {}", provider::signed(&provider::claims(now_s)));
    let good = [("authorization", good.as_str())];
    while status(&server, ME, &good).await == 503 {
        // The background task announces nothing: a pause between two tries.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status(&server, ME, &good).await, 200);
    for (what, token) in provider::forged(now_s) {
        let token = format!("Bearer {token}");
        for path in [ME, "/v1/budgets/town/submissions/s-1"] {
            let headers = [("authorization", token.as_str()), COOKIE];
            assert_eq!(status(&server, path, &headers).await, 401, "{what} at {path}");
        }
    }
}
