//! The forms of the pages: from an address over a code to a submission.

use http::Method;

use super::{ADDRESS, Mailing, decoded, wrong_codes};
use crate::service::{ALLOCATION, ME, OURS, subject};
use crate::support::TestResponse;

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
    assert_eq!(service.harness.log.records.lock().len(), 1);
    let theirs = [("sec-fetch-site", "cross-site"), ("cookie", session.as_str())];
    let response = service.send(Method::PUT, ME, &theirs, ALLOCATION).await;
    response.problem(403, "forbidden");
    let ours = [OURS, ("cookie", session.as_str())];
    service.send(Method::PUT, ME, &ours, ALLOCATION).await.accepted();
}
