//! Persons by e-mail: one-time codes over a real SMTP conversation, and what nobody learns from them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use schemas::{BudgetId, IdentityRule};

use crate::service::{ALLOCATION, ME, OURS, SESSION, SUBMITTER, Service, bearer, subject};
use crate::smtp_server::{Attempt, SmtpServer};
use crate::support::{SUBMISSIONS, TestResponse, lock};

const ADDRESS: &str = "zebra.quokka@example.org";
/// Codes that are wrong with certainty, since codes are sent without these.
const WRONG: [&str; 5] = ["000000", "111111", "222222", "333333", "444444"];

/// A service that sends its mails to a server of the test.
struct Mailing {
    service: Service,
    smtp: SmtpServer,
}

impl Mailing {
    async fn new(settings: &[(&str, &str)]) -> Self {
        Self::with_query("", settings).await
    }

    /// Starts a service whose URL of the SMTP server has a query.
    async fn with_query(query: &str, settings: &[(&str, &str)]) -> Self {
        let smtp = SmtpServer::start().await;
        let url = smtp.url() + query;
        let own = [
            ("email.smtp_url", url.as_str()),
            ("email.from", "Town <noreply@town.example>"),
            ("limits.sign_in", "off"),
            ("admin.failures_per_minute", "1000"),
        ];
        let service = Service::with(IdentityRule::Email, &[&own, settings].concat());
        Self { service, smtp }
    }

    async fn post(&self, body: &str) -> TestResponse {
        self.service.send(Method::POST, SESSION, &[], body).await
    }

    async fn ask(&self, address: &str) -> TestResponse {
        self.post(&format!(r#"{{"email":"{address}"}}"#)).await
    }

    async fn enter(&self, address: &str, otp: &str) -> TestResponse {
        self.post(&format!(r#"{{"email":"{address}","otp":"{otp}"}}"#)).await
    }

    /// Asks for a code, and returns that of the mail with this number.
    async fn code(&self, address: &str, number: usize) -> String {
        assert_eq!(self.ask(address).await.status.as_u16(), 202);
        self.smtp.nth_mail(number).await.code()
    }

    fn metric(&self, series: &str) -> u64 {
        let text = String::from_utf8(self.service.harness.metrics.render()).unwrap();
        let name = format!("allocator_{series} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap()
    }

    /// Waits until so many mails have this outcome.
    async fn until_counted(&self, outcome: &str, mails: u64) {
        let series = format!("ingest_emails_total{{outcome=\"{outcome}\"}}");
        for _ in 0..6_000 {
            if self.metric(&series) == mails {
                return;
            }
            // The background task announces nothing: a pause between two looks.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{outcome}: {}", self.metric(&series));
    }
}

fn wrong_codes(code: &str) -> impl Iterator<Item = &'static str> {
    let code = code.to_owned();
    WRONG.into_iter().chain(["555555"]).filter(move |wrong| *wrong != code)
}

#[tokio::test]
async fn a_code_from_the_mail_opens_one_session_of_the_mailboxs_person() {
    let mailing = Mailing::new(&[]).await;
    let code = mailing.code("Zebra.Quokka+vote@EXAMPLE.org", 1).await;
    assert_eq!(mailing.smtp.mails()[0].recipients, [format!("<{ADDRESS}>")]);

    let opened = mailing.enter("ZEBRA.quokka@example.org", &code).await;
    assert_eq!(opened.status.as_u16(), 200);
    assert_eq!(opened.header("cache-control"), Some("no-store"));
    let token = bearer(opened.json()["token"].as_str().unwrap());
    mailing.enter(ADDRESS, &code).await.problem(401, "unauthorized");

    let authorization = [("authorization", token.as_str())];
    let service = &mailing.service;
    service.send(Method::PUT, ME, &authorization, ALLOCATION).await.accepted();
    service.send(Method::DELETE, ME, &authorization, "").await.accepted();
    let submitter = bearer(SUBMITTER);
    let named = r#"{"person":"Zebra.Quokka+x@Example.org","allocation":{"health":100}}"#;
    let on_behalf = [("authorization", submitter.as_str())];
    service.send(Method::POST, SUBMISSIONS, &on_behalf, named).await.accepted();
    let nobody = named.replace("Example.org", "localhost");
    let response = service.send(Method::POST, SUBMISSIONS, &on_behalf, &nobody).await;
    response.problem(400, "malformed");
    assert_eq!(service.persons(), vec![subject("email", ADDRESS); 3]);
    let other = named.replace("Zebra", "okapi");
    let response = service.send(Method::POST, SUBMISSIONS, &authorization, &other).await;
    response.problem(403, "forbidden");
    let response = service.send(Method::POST, SUBMISSIONS, &authorization, &nobody).await;
    response.problem(403, "forbidden");
    service.send(Method::PUT, ME, &[], ALLOCATION).await.problem(401, "unauthorized");
}

#[tokio::test]
async fn every_address_gets_the_same_answer_and_only_an_allowed_one_a_mail() {
    let lists = [
        ("email.allowed_domains", "example.org,*.example.org"),
        ("email.denied_domains", "evil.example.org"),
    ];
    let mailing = Mailing::new(&lists).await;
    let mut answers = Vec::new();
    for address in [
        "a@elsewhere.example",
        "a@evil.example.org",
        "a@no-such-domain.invalid",
        ADDRESS,
        ADDRESS,
        ADDRESS,
        // Throttled from here on.
        ADDRESS,
        ADDRESS,
        "okapi@sub.example.org",
    ] {
        let response = mailing.ask(address).await;
        let mut headers = response.headers.clone();
        for changing in ["x-request-id", "date"] {
            headers.remove(changing);
        }
        answers.push((response.status.as_u16(), headers, response.body));
    }
    assert_eq!(answers[0].0, 202);
    let same = answers[0].clone();
    assert!(answers.iter().all(|answer| *answer == same), "{answers:?}");

    mailing.until_counted("sent", 4).await;
    mailing.until_counted("denied", 3).await;
    mailing.until_counted("throttled", 2).await;
    let recipients: Vec<String> =
        mailing.smtp.mails().into_iter().flat_map(|mail| mail.recipients).collect();
    assert_eq!(recipients.iter().filter(|to| **to == format!("<{ADDRESS}>")).count(), 3);
    assert!(recipients.iter().all(|to| to.ends_with("example.org>") && !to.contains("evil")));
}

#[tokio::test]
async fn a_wrong_used_denied_or_unknown_code_gets_the_same_answer() {
    let mailing = Mailing::new(&[("email.denied_domains", "evil.example")]).await;
    let used = mailing.code(ADDRESS, 1).await;
    assert_eq!(mailing.enter(ADDRESS, &used).await.status.as_u16(), 200);
    let code = mailing.code("okapi@example.org", 2).await;
    let wrong = wrong_codes(&code).next().unwrap();
    mailing.ask("a@evil.example").await;
    let mut answers = Vec::new();
    for (address, otp) in [
        (ADDRESS, used.as_str()),
        ("okapi@example.org", wrong),
        ("unknown@example.org", "123456"),
        ("a@evil.example", "123456"),
    ] {
        let response = mailing.enter(address, otp).await;
        assert_eq!(response.header("set-cookie"), None);
        answers.push((response.problem(401, "unauthorized"), response.headers.len()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn a_code_is_bound_to_its_budget_and_its_address() {
    let mailing = Mailing::new(&[]).await;
    let definitions = &mailing.service.harness.definitions;
    let mut other = schemas::Budget::clone(&definitions.get("taxes").unwrap());
    other.id = BudgetId::parse("parks").unwrap();
    definitions.put(other);
    let code = mailing.code(ADDRESS, 1).await;
    let elsewhere = "/v1/budgets/parks/session";
    let body = format!(r#"{{"email":"{ADDRESS}","otp":"{code}"}}"#);
    let response = mailing.service.send(Method::POST, elsewhere, &[], &body).await;
    response.problem(401, "unauthorized");
    mailing.enter("okapi@example.org", &code).await.problem(401, "unauthorized");
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
}

#[tokio::test]
async fn five_wrong_tries_void_a_code_and_a_new_one_lets_its_owner_in_at_once() {
    let mailing = Mailing::new(&[]).await;
    let first = mailing.code(ADDRESS, 1).await;
    for wrong in wrong_codes(&first).take(5) {
        mailing.enter(ADDRESS, wrong).await.problem(401, "unauthorized");
    }
    mailing.enter(ADDRESS, &first).await.problem(401, "unauthorized");
    let second = mailing.code(ADDRESS, 2).await;
    for wrong in wrong_codes(&second).take(4) {
        mailing.enter(ADDRESS, wrong).await.problem(401, "unauthorized");
    }
    assert_eq!(mailing.enter(ADDRESS, &second).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_new_code_replaces_the_old_one_and_a_throttled_request_leaves_it() {
    let mailing = Mailing::new(&[]).await;
    let first = mailing.code(ADDRESS, 1).await;
    let second = mailing.code(ADDRESS, 2).await;
    if first != second {
        mailing.enter(ADDRESS, &first).await.problem(401, "unauthorized");
    }
    let third = mailing.code(ADDRESS, 3).await;
    mailing.ask(ADDRESS).await;
    mailing.until_counted("throttled", 1).await;
    assert_eq!(mailing.enter(ADDRESS, &third).await.status.as_u16(), 200);
}

#[tokio::test]
async fn malformed_bodies_have_all_faults_and_repeat_nothing() {
    let mailing = Mailing::new(&[]).await;
    for (body, pointers) in [
        ("{}", &["/email"][..]),
        (r#"{"email":7}"#, &["/email"]),
        (r#"{"email":"zebra"}"#, &["/email"]),
        (r#"{"email":"zebra@localhost","otp":"77x77"}"#, &["/email", "/otp"]),
        (r#"{"otp":"777777"}"#, &["/email"]),
        (r#"{"email":"zebra@example.org","otp":"7777777"}"#, &["/otp"]),
        (r#"{"email":"zebra@example.org","otp":""}"#, &["/otp"]),
        (r#"{"email":"zebra@example.org","code":"7777"}"#, &["/code"]),
        (r#"{"email":"zebra@example.org\r\nBcc: a@example.org"}"#, &["/email"]),
        ("[]", &[""]),
        ("zebra", &[""]),
    ] {
        let response = mailing.post(body).await;
        response.problem(400, "malformed");
        assert_eq!(response.pointers(), pointers, "{body}");
        let text = String::from_utf8_lossy(&response.body);
        assert!(!text.contains("zebra") && !text.contains("77"), "{text}");
    }
    let long = format!(r#"{{"email":"{}@example.org"}}"#, "a".repeat(10_000));
    mailing.post(&long).await.problem(400, "malformed");
    assert_eq!(mailing.smtp.attempts(), 0);
    // In a budget of another rule an address is no member.
    mailing.service.harness.edit_budget(|budget| budget.identity = IdentityRule::Code);
    let response = mailing.ask(ADDRESS).await;
    response.problem(400, "malformed");
}

#[tokio::test]
async fn without_the_store_of_codes_both_steps_are_503_and_nobody_gets_in() {
    let mailing = Mailing::new(&[]).await;
    let code = mailing.code(ADDRESS, 1).await;
    let failing = &mailing.service.harness.codes.failing;
    failing.store(true, Ordering::Relaxed);
    for response in [mailing.ask(ADDRESS).await, mailing.enter(ADDRESS, &code).await] {
        response.problem(503, "unavailable");
        assert_eq!(response.header("retry-after"), Some("1"));
        assert_eq!(response.header("set-cookie"), None);
    }
    failing.store(false, Ordering::Relaxed);
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_mail_is_tried_again_after_a_passing_fault_and_not_after_a_final_one() {
    let mailing = Mailing::new(&[]).await;
    let passing = [
        Attempt::RefuseRecipient(451),
        Attempt::BreakOff,
        Attempt::Delay(Duration::from_millis(200)),
    ];
    mailing.smtp.script(passing);
    let code = mailing.code(ADDRESS, 1).await;
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
    mailing.until_counted("sent", 1).await;
    assert_eq!(mailing.smtp.attempts(), 3);
    assert_eq!(mailing.metric("ingest_email_failed_attempts_total"), 2);
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 0);

    mailing.smtp.script([Attempt::RefuseRecipient(550)]);
    assert_eq!(mailing.ask("gone@example.org").await.status.as_u16(), 202);
    mailing.until_counted("refused", 1).await;
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 0, "one mailbox is no outage");
    mailing.smtp.script([Attempt::RefuseRecipient(535)]);
    mailing.ask("okapi@example.org").await;
    mailing.until_counted("refused", 2).await;
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 1);
    assert_eq!(mailing.smtp.attempts(), 5);
    assert_eq!(mailing.metric("ingest_emails_pending"), 0);
    let text = String::from_utf8(mailing.service.harness.metrics.render()).unwrap();
    assert!(!text.contains("example.org"), "{text}");
}

#[tokio::test]
async fn the_server_counts_as_failing_after_several_recipients_and_not_after_one() {
    let mailing = Mailing::new(&[]).await;
    mailing.smtp.script([Attempt::RefuseRecipient(554); 5]);
    for refused in 1..=3 {
        mailing.ask(ADDRESS).await;
        mailing.until_counted("refused", refused).await;
    }
    mailing.ask("b@example.org").await;
    mailing.until_counted("refused", 4).await;
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 0);
    mailing.ask("c@example.org").await;
    mailing.until_counted("refused", 5).await;
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 1);
    mailing.code("d@example.org", 1).await;
    mailing.until_counted("sent", 1).await;
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 0);
}

#[tokio::test]
async fn deferred_recipients_have_bounded_retries_and_leave_room_for_new_mails() {
    let mailing = Mailing::new(&[]).await;
    mailing.smtp.defer_domain("slow.example");
    for number in 0..300 {
        mailing.ask(&format!("p{number}@slow.example")).await;
    }
    mailing.until_counted("given_up", 50).await;
    assert_eq!(mailing.metric("ingest_emails_pending"), 250);
    mailing.code(ADDRESS, 1).await;
    mailing.until_counted("sent", 1).await;
    assert_eq!(mailing.metric("ingest_emails_total{outcome=\"dropped\"}"), 0);
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 0);
}

#[tokio::test]
async fn a_client_that_has_failed_too_often_costs_the_owner_of_a_code_no_try() {
    let mailing = Mailing::new(&[("admin.failures_per_minute", "2")]).await;
    let code = mailing.code(ADDRESS, 1).await;
    let stranger = [("x-forwarded-for", "192.0.2.1")];
    let mut statuses = Vec::new();
    for wrong in wrong_codes(&code) {
        let body = format!(r#"{{"email":"{ADDRESS}","otp":"{wrong}"}}"#);
        let response = mailing.service.send(Method::POST, SESSION, &stranger, &body).await;
        statuses.push(response.status.as_u16());
        let form = format!("email={ADDRESS}&otp={wrong}");
        let posted = mailing.service.post_form("session", &stranger, &form).await;
        assert_eq!(posted.header("set-cookie"), None);
    }
    assert_eq!(statuses[0], 401);
    assert_eq!(statuses[1..], [429; 5][..statuses.len() - 1]);
    // A right code is not told from a wrong one.
    let body = format!(r#"{{"email":"{ADDRESS}","otp":"{code}"}}"#);
    let response = mailing.service.send(Method::POST, SESSION, &stranger, &body).await;
    response.problem(429, "rate-limited");
    assert!(response.header("retry-after").is_some());
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
}

#[tokio::test]
async fn denied_addresses_do_not_fill_the_store_of_codes() {
    let mailing = Mailing::new(&[("email.allowed_domains", "example.org")]).await;
    for number in 0..3_000 {
        mailing.ask(&format!("p{number}@d{number}.example")).await;
    }
    mailing.until_counted("denied", 3_000).await;
    assert!(lock(&mailing.service.harness.codes.slots).len() <= 1_024);
    let code = mailing.code(ADDRESS, 1).await;
    assert_eq!(mailing.enter(ADDRESS, &code).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_global_limit_bounds_the_requests_for_mails_of_all_clients() {
    let limit = ("limits.extra", "mails global token-bucket 3/60s on=sign-in");
    let mailing = Mailing::new(&[limit]).await;
    let mut statuses = Vec::new();
    for client in 1..=5 {
        let forwarded = format!("192.0.2.{client}");
        let client = [("x-forwarded-for", forwarded.as_str())];
        let body = format!(r#"{{"email":"p{forwarded}@example.org"}}"#);
        let response = mailing.service.send(Method::POST, SESSION, &client, &body).await;
        statuses.push(response.status.as_u16());
    }
    assert_eq!(statuses, [202, 202, 202, 429, 429]);
    let client = [("x-forwarded-for", "192.0.2.9"), ("accept", "application/json")];
    let form = mailing.service.post_form("session", &client, "email=q@example.org").await;
    assert_eq!(form.status.as_u16(), 429);
    mailing.until_counted("sent", 3).await;
    assert_eq!(mailing.smtp.mails().len(), 3);
}

#[tokio::test]
async fn a_server_without_tls_gets_no_address_where_tls_is_required() {
    let mailing = Mailing::with_query("?tls=required", &[]).await;
    assert_eq!(mailing.ask(ADDRESS).await.status.as_u16(), 202);
    mailing.until_counted("refused", 1).await;
    assert_eq!(mailing.smtp.attempts(), 0);
    assert_eq!(mailing.metric("ingest_email_sending_fails"), 1);
}

#[tokio::test]
async fn a_mail_is_in_the_clients_language_and_no_name_of_a_budget_adds_a_header() {
    let mailing = Mailing::new(&[]).await;
    mailing.service.harness.edit_budget(|budget| {
        budget.name = "Parks?\r\nBcc: victim@example.org\r\n\r\nhello".to_owned();
    });
    let body = format!(r#"{{"email":"{ADDRESS}"}}"#);
    for (number, (language, text)) in
        [("de-AT,en;q=0.5", "zehn Minuten"), ("ar", "عشر دقائق"), ("xx", "ten minutes")]
            .into_iter()
            .enumerate()
    {
        let headers = [("accept-language", language)];
        mailing.service.send(Method::POST, SESSION, &headers, &body).await;
        let mail = mailing.smtp.nth_mail(number + 1).await;
        assert!(decoded(&mail.body()).contains(text), "{language}: {}", mail.text);
        assert_eq!(mail.recipients, [format!("<{ADDRESS}>")]);
        let headers = mail.headers();
        assert!(!headers.lines().any(|line| line.starts_with("Bcc")), "{headers}");
        for header in [
            "From: Town <noreply@town.example>",
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
        ] {
            assert!(headers.contains(header), "{headers}");
        }
        assert!(!mail.text.contains("http"), "{}", mail.text);
    }
}

/// Decodes quoted-printable; other texts have no `=XX`.
fn decoded(text: &str) -> String {
    let text = text.replace("=\n", "");
    let mut bytes = Vec::new();
    let mut pieces = text.split('=');
    bytes.extend(pieces.next().unwrap_or_default().bytes());
    for piece in pieces {
        match piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(piece[2..].bytes());
            }
            None => bytes.extend(format!("={piece}").bytes()),
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_budget_with_persons_by_email_needs_an_smtp_server() {
    const BODY: &str = r#"{"name":"New","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}],"identity":"email"}"#;
    let without = crate::support::Harness::new();
    let json = [("content-type", "application/json")];
    let response = without.send(Method::PUT, "/v1/budgets/new", &json, BODY).await;
    response.problem(422, "invalid-budget");
    assert_eq!(response.pointers(), ["/identity"]);
    // Another process may have one.
    without.edit_budget(|budget| budget.identity = IdentityRule::Email);
    let response = without.post(SESSION, format!(r#"{{"email":"{ADDRESS}"}}"#)).await;
    response.problem(503, "unavailable");

    let smtp = [("email.smtp_url", "smtp://127.0.0.1:1"), ("email.from", "a@town.example")];
    let with = crate::support::Harness::with(1_000, &smtp);
    let response = with.send(Method::PUT, "/v1/budgets/new", &json, BODY).await;
    assert_eq!(response.status.as_u16(), 201);
    assert_eq!(response.json()["identity"], "email");
}

/// Returns the cookies that a response sets, as a browser sends them back to pages.
fn cookies(response: &TestResponse) -> String {
    let set = response.headers.get_all("set-cookie").iter();
    let pairs = set.filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
    let mut pairs: Vec<&str> = pairs.filter(|pair| !pair.ends_with('=')).collect();
    pairs.dedup();
    pairs.join("; ")
}

#[tokio::test]
async fn the_forms_lead_from_an_address_over_a_code_to_the_answer() {
    let mailing = Mailing::new(&[]).await;
    let service = &mailing.service;
    let asked = service.post_form("session", &[], &format!("email={ADDRESS}&lang=fr")).await;
    assert_eq!(asked.status.as_u16(), 303);
    assert_eq!(asked.header("location"), Some("/budgets/taxes/mine?lang=fr"));
    let cookie = cookies(&asked);
    assert_eq!(cookie, format!("allocator_email={ADDRESS}"));
    let mail = mailing.smtp.nth_mail(1).await;
    assert!(decoded(&mail.body()).contains("dix minutes"), "{}", mail.text);

    let code = mail.code();
    let wrong = format!("otp={}&c.health=100&c.unknown=1", wrong_codes(&code).next().unwrap());
    let refused = service.post_form("session", &[("cookie", &cookie)], &wrong).await;
    let location = "/budgets/taxes/confirm?c.health=100&fault=otp";
    assert_eq!(refused.header("location"), Some(location));
    let entered = format!("otp={}-{}&c.health=100", &code[..3], &code[3..]);
    let opened = service.post_form("session", &[("cookie", &cookie)], &entered).await;
    assert_eq!(opened.header("location"), Some("/budgets/taxes/confirm?c.health=100"));
    assert!(
        opened
            .headers
            .get_all("set-cookie")
            .iter()
            .any(|it| { it.to_str().unwrap().starts_with("allocator_email=;") })
    );
    let session = cookies(&opened);
    let headers = [("cookie", session.as_str())];
    let submitted = service.post_form("submit", &headers, "c.health=100").await;
    assert!(submitted.header("location").unwrap().starts_with("/budgets/taxes/mine?receipt="));
    assert_eq!(service.persons(), [subject("email", ADDRESS)]);

    for (form, headers, location) in [
        ("email=zebra", &[][..], "/budgets/taxes/mine?fault=email"),
        ("otp=123456", &[], "/budgets/taxes/mine?fault=email"),
        ("otp=12", &[("cookie", cookie.as_str())], "/budgets/taxes/mine?fault=otp"),
        ("", &[], "/budgets/taxes/mine?fault=email"),
    ] {
        let response = service.post_form("session", headers, form).await;
        assert_eq!(response.header("location"), Some(location), "{form}");
        assert_eq!(response.header("set-cookie"), None, "{form}");
    }
    let unsigned = service.post_form("submit", &[], "c.health=100").await;
    let location = unsigned.header("location").unwrap();
    assert!(location.starts_with("/budgets/taxes/confirm?c.health=100&fault=unauthorized"));
    let person = service.post_form("person", &[], "").await;
    assert_eq!(person.header("set-cookie"), None);
    let ended = service.post_form("session/end", &headers, "").await;
    assert!(ended.headers.get_all("set-cookie").iter().count() > 0);
    assert_eq!(lock(&service.harness.log.records).len(), 1);
    let theirs = [("sec-fetch-site", "cross-site"), ("cookie", session.as_str())];
    let response = service.send(Method::PUT, ME, &theirs, ALLOCATION).await;
    response.problem(403, "forbidden");
    let ours = [OURS, ("cookie", session.as_str())];
    service.send(Method::PUT, ME, &ours, ALLOCATION).await.accepted();
}
