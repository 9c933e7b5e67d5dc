//! The public pages.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use page::assets::Assets;
use schemas::*;

use crate::fakes::*;
use crate::test_server::*;

const ID: &str = "a-AAAAAAAAAAAAAAAAAAAAAA";
const COOKIE: &str = "allocator_person=a-AAAAAAAAAAAAAAAAAAAAAA";

fn define(server: &TestServer, name: &str, change: impl FnOnce(&mut Budget)) {
    let mut budget = budget(name);
    budget.revision = 2;
    change(&mut budget);
    server.definitions.put(budget);
}

/// Closes every budget but one.
fn only_open(server: &TestServer, open: &str) {
    for name in BUDGETS.into_iter().filter(|name| *name != open) {
        define(server, name, |budget| budget.closes_at = Some(Timestamp::UNIX_EPOCH));
    }
}

fn put_person(server: &TestServer, offset: u64, shares: &[u16]) -> PartitionId {
    let key = server.key("town", &PersonId::parse(ID).unwrap());
    let partition = partition_for(&key, partitions());
    server.store.put_row(partition, row(key, "town", offset, shares));
    partition
}

#[tokio::test(start_paused = true)]
async fn the_only_open_budget_is_shown_at_the_root_and_several_are_listed() {
    let server = TestServer::new();
    let list = server.get("/").await;
    assert_eq!(
        (list.status.as_u16(), list.header("content-type")),
        (200, "text/html; charset=utf-8")
    );
    for name in BUDGETS {
        assert!(list.text.contains(&format!("href=\"/budgets/{name}?lang=en\"")), "{name}");
    }
    only_open(&server, "town");
    let root = server.get("/").await;
    assert!(root.text.contains("<link rel=\"canonical\" href=\"/budgets/town\">"), "{}", root.text);
    assert_eq!(root.text, server.get("/budgets/town").await.text);
    let list = server.get("/budgets").await.text;
    assert!(list.find("<h2>Open</h2>") < list.find("<h2>Closed</h2>"));
    server.definitions.loading.store(true, Ordering::SeqCst);
    let early = server.get("/").await;
    assert_eq!((early.status.as_u16(), early.header("retry-after")), (503, "1"));
}

#[tokio::test(start_paused = true)]
async fn a_changed_presentation_is_shown_at_once_in_each_language() {
    let server = TestServer::new();
    server.commit("town", &[(0, [2_500, 7_500])]);
    assert!(server.get("/budgets/town?lang=de").await.text.contains("<bdi>The town budget</bdi>"));
    define(&server, "town", |budget| {
        let shares =
            r#"{"name":"Ours","source":"Accounts","percent":{"health":39.99,"education":60.01}}"#;
        budget.presentation.reference = serde_json::from_str(shares).unwrap();
        budget.presentation.language = Some("en".to_owned());
        let german = Translation { name: Some("Die Stadt".to_owned()), ..Translation::default() };
        budget.presentation.translations.insert("de".to_owned(), german);
    });
    let german = server.get("/budgets/town?lang=de").await.text;
    for shown in ["<h1><bdi>Die Stadt</bdi>", "39,99\u{a0}%", "<bdi lang=\"en\">Accounts</bdi>"] {
        assert!(german.contains(shown), "{shown} in {german}");
    }
    assert!(server.get("/budgets/town").await.text.contains("<h1><bdi>The town budget</bdi>"));
}

#[tokio::test(start_paused = true)]
async fn the_administrators_page_is_an_empty_frame_that_nobody_keeps() {
    let server = TestServer::new();
    let page = server.get("/admin").await;
    assert_eq!((page.status.as_u16(), page.header("cache-control")), (200, "private, no-store"));
    assert!(page.header("content-security-policy").contains("frame-ancestors 'none'"));
    assert!(page.text.contains("needs JavaScript") && !page.text.contains("town"));
}

#[tokio::test(start_paused = true)]
async fn a_page_shows_the_results_and_is_revalidated_by_content_language_and_encoding() {
    let server = TestServer::new();
    server.commit("town", &[(0, [2_500, 7_500]), (1, [3_000, 7_000])]);
    let page = server.get("/budgets/town").await;
    assert!(page.text.contains("People: 2") && page.text.contains("27.5\u{a0}%"), "{}", page.text);
    assert!(page.text.contains("\"people\":2,"), "the page's script reads the aggregate");
    assert_eq!(
        page.header("cache-control"),
        "public, max-age=0, s-maxage=1, stale-while-revalidate=5, stale-if-error=60"
    );
    assert_eq!(page.header("vary"), "accept-language, accept-encoding");
    let etag = page.header("etag").to_owned();
    let again = server.get_with("/budgets/town", &[("if-none-match", &etag)]).await;
    assert_eq!(
        (again.status.as_u16(), again.text.as_str(), again.header("etag")),
        (304, "", etag.as_str())
    );
    for headers in [("accept-language", "de, en;q=0.5"), ("accept-encoding", "br, gzip")] {
        let other = server.open_with("/budgets/town", &[headers, ("if-none-match", &etag)]).await;
        assert_eq!(other.status(), 200, "{headers:?}");
        assert_ne!(other.headers()["etag"], etag);
    }
    let zipped = server.open_with("/budgets/town", &[("accept-encoding", "gzip")]).await;
    assert_eq!(zipped.headers()["content-encoding"], "gzip");
    let german = server.get_with("/budgets/town?lang=de", &[("accept-language", "fr")]).await.text;
    assert!(german.contains("<html lang=\"de\" dir=\"ltr\">") && german.contains("27,5\u{a0}%"));
    let arabic = server.get("/budgets/town?lang=ar").await.text;
    assert!(arabic.contains("<html lang=\"ar\" dir=\"rtl\">"));
}

#[tokio::test(start_paused = true)]
async fn a_page_is_rendered_at_most_once_a_second_but_a_changed_definition_is_shown_at_once() {
    let server = TestServer::new();
    server.commit("town", &[(0, [2_500, 7_500])]);
    let people = async |server: &TestServer| {
        let text = server.get("/budgets/town").await.text;
        text.split_once("<p id=\"people\">People: ")
            .unwrap()
            .1
            .split('<')
            .next()
            .unwrap()
            .to_owned()
    };
    assert_eq!(people(&server).await, "1");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    server.commit("town", &[(0, [2_500, 7_500]), (1, [2_500, 7_500])]);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(people(&server).await, "2");
    define(&server, "town", |budget| budget.name = "Another question".to_owned());
    assert!(server.get("/budgets/town").await.text.contains("Another question"));
}

#[tokio::test(start_paused = true)]
async fn every_page_has_the_security_headers() {
    let server = TestServer::new();
    let form = "/budgets/town?c.health=40&c.education=60&do=check";
    let confirm = "/budgets/town/confirm?c.health=40&c.education=60";
    for path in [
        "/",
        "/budgets",
        "/budgets/town",
        form,
        confirm,
        "/budgets/town/results",
        "/budgets/town/mine",
        "/budgets/nope",
    ] {
        let page = server.get(path).await;
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8", "{path}");
        let policy = page.header("content-security-policy");
        for directive in [
            "default-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(directive), "{path} {policy}");
        }
        assert_eq!(page.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(page.header("cross-origin-opener-policy"), "same-origin", "{path}");
        assert_eq!(page.header("cross-origin-resource-policy"), "same-origin", "{path}");
        assert!(page.header("permissions-policy").contains("geolocation=()"), "{path}");
        assert!(!page.text.contains("style=") && !page.text.contains("onclick"), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_tools_work_without_a_script_and_ignore_links_of_other_sites() {
    let server = TestServer::new();
    let shared = server.get("/budgets/town?c.health=40.5&c.education=&do=share").await;
    assert_eq!(shared.header("cache-control"), "private, no-store");
    assert!(shared.text.contains("name=\"c.education\" value=\"59.5\""), "{}", shared.text);
    assert!(shared.text.contains("Shared 59.5\u{a0}% over 1. Nothing left."));
    let scaled = server.get("/budgets/town?c.health=1&c.education=2&do=scale&lang=de").await.text;
    assert!(scaled.contains("value=\"33,33\"") && scaled.contains("value=\"66,67\""));
    let faulty = server.get("/budgets/town?c.health=x&c.education=2&do=check").await.text;
    assert!(faulty.contains("<title>Error: ") && faulty.contains("href=\"#c-health\""));
    let over = server.get("/budgets/town?c.health=90&c.education=35.5&do=check").await.text;
    assert!(over.contains("Your shares make 125.5\u{a0}%. Take away 25.5\u{a0}%"), "{over}");
    let link = server
        .get_with("/budgets/town?c.health=40&do=check", &[("sec-fetch-site", "cross-site")])
        .await;
    assert!(!link.text.contains("value=\"40\""));
    assert_eq!(
        link.header("cache-control"),
        "public, max-age=0, s-maxage=1, stale-while-revalidate=5, stale-if-error=60"
    );
    let hostile = server
        .get("/budgets/town?c.health=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&do=check")
        .await
        .text;
    assert!(!hostile.contains("<script>alert"));
}

#[tokio::test(start_paused = true)]
async fn confirming_makes_a_person_once_and_sends_faulty_values_back() {
    let server = TestServer::new();
    let path = "/budgets/town/confirm?c.health=40&c.education=60&lang=en";
    let page = server.get(path).await;
    let cookie = page.header("set-cookie");
    assert!(
        cookie.starts_with("allocator_person=a-") && cookie.contains("; Path=/budgets/town; "),
        "{cookie}"
    );
    assert!(cookie.ends_with("; HttpOnly; SameSite=Lax"), "{cookie}");
    assert_eq!((page.status.as_u16(), page.header("cache-control")), (200, "private, no-store"));
    assert!(page.text.contains("method=\"post\" action=\"/budgets/town/submit\""));
    assert!(
        page.text.contains("name=\"submission_id\" value=\"")
            && page.text.contains("name=\"c.health\" value=\"40\"")
    );
    let id = cookie.split_once('=').unwrap().1.split(';').next().unwrap();
    assert!(!page.text.contains(id));
    let pairs = |page: &TestResponse| -> Vec<String> {
        let cookies = page.headers.get_all("set-cookie").iter();
        let pair = |cookie: &http::HeaderValue| {
            cookie.to_str().unwrap().split(';').next().unwrap().to_owned()
        };
        cookies.map(pair).collect()
    };
    let both = pairs(&page).join("; ");
    assert_eq!(server.get_with(path, &[("cookie", &both)]).await.header("set-cookie"), "");
    // As an earlier release has set it: the id stays, and gets its hash.
    let earlier = pairs(&server.get_with(path, &[("cookie", COOKIE)]).await);
    assert_eq!((earlier.len(), &*earlier[0]), (2, COOKIE));
    assert!(earlier[1].starts_with(&COOKIE.replace('=', "_signed=")));
    let https = server.get_with(path, &[("x-forwarded-proto", "https")]).await;
    assert!(https.header("set-cookie").ends_with("; Secure"));
    let failed =
        format!("{path}&fault=unavailable&submission_id=0198c0de-0000-7000-8000-000000000001");
    let failed = server.get(&failed).await.text;
    assert!(
        failed.contains("role=\"alert\"")
            && failed.contains("0198c0de-0000-7000-8000-000000000001")
    );
    let faulty = server.get("/budgets/town/confirm?c.health=40&c.education=50&lang=de").await;
    let back = "/budgets/town?c.health=40&c.education=50&lang=de&do=check";
    assert_eq!(
        (faulty.status.as_u16(), faulty.header("location"), faulty.header("set-cookie")),
        (303, back, "")
    );
    define(&server, "town", |budget| budget.closes_at = Some(Timestamp::UNIX_EPOCH));
    assert_eq!(server.get(path).await.header("location"), "/budgets/town?lang=en");
}

#[tokio::test(start_paused = true)]
async fn a_browser_without_the_cookie_is_nobody_and_no_store_is_asked() {
    let server = TestServer::new();
    server.store.people_switch.set(Mode::Hangs);
    let script = [("accept", "application/json")];
    for cookie in ["", "allocator_person=x", "other=a-AAAAAAAAAAAAAAAAAAAAAA"] {
        let mine = server.get_with("/budgets/town/mine", &[script[0], ("cookie", cookie)]).await;
        assert_eq!(
            (mine.status.as_u16(), mine.header("cache-control")),
            (204, "private, no-store")
        );
        let page = server.get_with("/budgets/town/mine", &[("cookie", cookie)]).await;
        assert!(page.text.contains("Nobody has taken part with this browser yet."));
    }
    assert_eq!(server.store.row_reads.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn the_own_page_shows_what_is_counted_and_waits_for_a_receipt() {
    let server = TestServer::new();
    server.commit("town", &[(0, [2_500, 7_500])]);
    let cookie = [("cookie", COOKIE)];
    let page = server.get_with("/budgets/town/mine", &cookie).await;
    assert!(page.text.contains("No answer of yours is counted."));
    let partition = put_person(&server, 7, &[3_305, 6_695]);
    let page = server.get_with("/budgets/town/mine?lang=de", &cookie).await;
    assert_eq!((page.status.as_u16(), page.header("cache-control")), (200, "private, no-store"));
    assert!(
        page.text.contains("33,05\u{a0}%") && page.text.contains(&format!("{partition}.7")),
        "{}",
        page.text
    );
    assert!(
        page.text.contains("action=\"/budgets/town/withdraw\"")
            && page.text.contains("c.health=33%2C05")
    );
    assert!(!page.text.contains(ID));
    let json =
        server.get_with("/budgets/town/mine", &[cookie[0], ("accept", "application/json")]).await;
    let direct = server.get(&format!("/v1/budgets/town/submissions/{ID}")).await;
    assert_eq!((json.status.as_u16(), json.text), (200, direct.text));
    let stored =
        server.get_with(&format!("/budgets/town/mine?receipt={partition}.8"), &cookie).await;
    assert!(
        stored.text.contains("Is being counted") && stored.text.contains(&format!("{partition}.8"))
    );
    put_person(&server, 9, &[]);
    let withdrawn =
        server.get_with(&format!("/budgets/town/mine?withdrawn={partition}.9"), &cookie).await;
    assert!(
        withdrawn.text.contains("Withdrawn: your answer is no longer counted"),
        "{}",
        withdrawn.text
    );
    for strange in ["x", "999.1", "99999999.1", "%3Cb%3E"] {
        let page = server.get_with(&format!("/budgets/town/mine?receipt={strange}"), &cookie).await;
        assert_eq!(page.status, 200, "{strange}");
    }
    server.store.people_switch.set(Mode::Fails);
    let page = server.get_with("/budgets/town/mine", &cookie).await;
    assert_eq!((page.status.as_u16(), page.header("retry-after")), (503, "1"));
    assert!(page.text.contains("Try again"));
}

#[tokio::test(start_paused = true)]
async fn withheld_results_show_no_number_and_do_not_change_the_page() {
    let server = TestServer::new();
    define(&server, "town", |budget| budget.minimum_people = 10);
    let closes_at = Timestamp::now() + SignedDuration::from_hours(24);
    define(&server, "park", |budget| {
        budget.results = ResultsVisibility::AfterClose;
        budget.closes_at = Some(closes_at);
    });
    for name in ["town", "park"] {
        let path = format!("/budgets/{name}");
        let before = server.get(&path).await;
        server.commit(name, &[(0, [2_517, 7_483]), (1, [3_019, 6_981])]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = server.get(&path).await;
        assert_eq!(after.text, before.text);
        assert_eq!(after.header("etag"), before.header("etag"));
        assert!(
            after.text.contains("class=\"withheld\"") && !after.text.contains("id=\"averages\""),
            "{}",
            after.text
        );
        assert!(!after.text.contains("\"version\""));
        put_person(&server, 7, &[3_305, 6_695]);
        let mine = server.get_with(&format!("{path}/mine"), &[("cookie", COOKIE)]).await;
        assert!(
            !mine.text.contains("id=\"averages\"") && !mine.text.contains("27.6"),
            "{}",
            mine.text
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_is_usable_while_results_cannot_be_read() {
    let server = TestServer::new();
    server.cache.switch.set(Mode::Fails);
    server.store.totals_switch.set(Mode::Fails);
    server.store.people_switch.set(Mode::Fails);
    let page = server.get("/budgets/school").await;
    assert_eq!(page.status, 200);
    assert!(
        page.text.contains("id=\"send\"")
            && page.text.contains("The results cannot be read at the moment."),
        "{}",
        page.text
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_budget_is_a_404_page_with_the_open_budgets() {
    let server = TestServer::new();
    for path in [
        "/budgets/nope",
        "/budgets/nope/results",
        "/budgets/nope/confirm?c.x=1",
        "/budgets/nope/mine",
    ] {
        let page = server.get(path).await;
        assert_eq!(
            (page.status.as_u16(), page.header("content-type")),
            (404, "text/html; charset=utf-8"),
            "{path}"
        );
        assert!(page.text.contains("/budgets/town?lang=en"), "{path}");
    }
    server.definitions.loading.store(true, Ordering::SeqCst);
    let page = server.get("/budgets/nope?x=%22%3E%3Cb%3E").await;
    assert_eq!((page.status.as_u16(), page.text.contains("<b>")), (503, false));
}

#[tokio::test(start_paused = true)]
async fn assets_are_kept_for_ever_under_their_digest_and_not_at_all_under_another() {
    let server = TestServer::new();
    let folder = Assets::embedded().folder();
    let page = server.get("/budgets/town").await.text;
    assert!(
        page.contains(&format!("href=\"{folder}page.css\""))
            && page.contains(&format!("src=\"{folder}page.js\""))
    );
    let css = server.get(&format!("{folder}page.css")).await;
    assert_eq!((css.status.as_u16(), css.header("content-type")), (200, "text/css; charset=utf-8"));
    assert_eq!(css.header("cache-control"), "public, max-age=31536000, immutable");
    let old = server.get("/assets/0123456789abcdef/page.css").await;
    assert_eq!((old.text, old.headers["cache-control"].to_str().unwrap()), (css.text, "no-store"));
    let zipped =
        server.open_with(&format!("{folder}page.js"), &[("accept-encoding", "gzip")]).await;
    assert_eq!(zipped.headers()["content-encoding"], "gzip");
    let plain =
        server.open_with(&format!("{folder}page.js"), &[("accept-encoding", "gzip;q=0, br")]).await;
    assert!(!plain.headers().contains_key("content-encoding"));
    assert_eq!(server.get(&format!("{folder}nothing.js")).await.status, 404);
}
