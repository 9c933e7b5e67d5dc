//! Tokens of identity providers and sessions, forged in every way that we know.
#![allow(clippy::unwrap_used)]

mod tokens;

use http::Request;
use http::header::{AUTHORIZATION, COOKIE, HOST};
use prometheus::IntGauge;
use ring::rand::SystemRandom;
use serde_json::json;

use super::jwks::KeySet;
use super::token_verifier::TokenVerifier;
use super::*;
use crate::admin::{AdminConfig, AdminGuard, TokensFile};
use crate::config::Settings;
use crate::metrics::Metrics;
use tokens::{
    ISSUER, P256, RSA_TOKEN, claims, encode, forged, key_set, message, signed, signed_by_ed25519,
};

const NOW_S: u64 = 1_500;
const ADMIN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

const SUBMITTER: &str = "ssssssssssssssssssssssssssssssss";

fn administrator_line() -> String {
    TokensFile::line("anna", Role::Admin, ADMIN)
}

fn submitter_line() -> String {
    TokensFile::line("load", Role::Submitter, SUBMITTER)
}

fn verifier() -> TokenVerifier {
    let pairs = [("identity.token_issuer", ISSUER), ("identity.token_keys", "/no/keys")];
    let config = config(&pairs).unwrap();
    TokenVerifier::new(&config.tokens.unwrap(), IntGauge::new("g", "g").unwrap()).unwrap()
}

fn config(pairs: &[(&str, &str)]) -> Result<IdentityConfig, crate::config::ConfigFaults> {
    let pairs = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
    let settings = Settings::from_pairs(pairs);
    let mut reader = settings.reader();
    let config = IdentityConfig::read(&mut reader);
    reader.finish(config)
}

#[test]
fn tokens_of_each_algorithm_name_their_person() {
    let verifier = verifier();
    verifier.set_keys(KeySet::parse(key_set().as_bytes()).unwrap());
    let es256 = message(&json!({"alg": "ES256", "kid": "ec"}), &claims(NOW_S).to_string());
    let signature = P256.sign(&SystemRandom::new(), es256.as_bytes()).unwrap();
    let es256 = format!("{es256}.{}", encode(signature.as_ref()));
    let without_kid = signed_by_ed25519(&json!({"alg": "EdDSA"}), &claims(NOW_S).to_string());
    for token in [signed(&claims(NOW_S)), es256, RSA_TOKEN.to_owned(), without_kid] {
        let person = verifier.verify(token.as_bytes(), NOW_S).unwrap();
        assert_eq!((&*person.issuer, person.subject.as_str()), (ISSUER, "s-1"));
        assert_eq!((person.organisation, person.budgets), (None, None));
    }
    let limited = json!({"iss": ISSUER, "sub": "s-1", "aud": ["x", "allocator"], "nbf": 1, "exp": 9_999,
        "budgets": ["parks"], "organisation": "school"});
    let person = verifier.verify(signed(&limited).as_bytes(), NOW_S).unwrap();
    assert_eq!(person.budgets, Some(vec!["parks".to_owned()]));
    assert_eq!(person.organisation.as_deref(), Some("school"));
}

#[test]
fn no_forged_token_is_accepted() {
    let verifier = verifier();
    verifier.set_keys(KeySet::parse(key_set().as_bytes()).unwrap());
    let forged = forged(NOW_S);
    assert!(forged.len() >= 25, "{}", forged.len());
    for (what, token) in forged {
        let verified = verifier.verify(token.as_bytes(), NOW_S);
        let fault = verified.expect_err(what);
        assert_eq!(fault.problem().status().as_u16(), 401, "{what}");
    }
}

#[test]
fn without_keys_no_token_is_accepted_and_the_client_may_retry() {
    let fault = verifier().verify(signed(&claims(NOW_S)).as_bytes(), NOW_S).unwrap_err();
    assert_eq!(fault, CredentialFault::NoKeys);
    assert_eq!(fault.problem().status().as_u16(), 503);
}

#[test]
fn sets_without_usable_keys_and_oversized_sets_are_refused() {
    let key = json!({"kty": "oct", "kid": "shared", "k": "AAAA"});
    let many = json!({"keys": vec![key.clone(); 33]});
    let short = json!({"keys": [{"kty": "RSA", "n": encode(&[255; 128]), "e": "AQAB"}]});
    for set in [json!({"keys": [key]}), json!({}), json!([]), many, short] {
        assert!(KeySet::parse(set.to_string().as_bytes()).is_err(), "{set}");
    }
}

fn session(budget: &str) -> Session<'_> {
    Session { method: "code", subject: "0000A", budget, begins_at_s: 1_000, ends_at_s: 2_000 }
}

#[test]
fn a_session_names_its_person_and_budget_and_no_changed_one_is_accepted() {
    let key = SessionKey::new(&[1; 32]);
    let token = key.sign(&session("parks"));
    let person = key.verify(token.as_bytes(), NOW_S).unwrap();
    assert_eq!((&*person.issuer, person.subject.as_str()), ("code", "0000A"));
    assert_eq!(person.budgets, Some(vec!["parks".to_owned()]));
    assert_eq!(key.verify(token.as_bytes(), 2_000), Err(CredentialFault::Expired));
    assert_eq!(key.verify(token.as_bytes(), 900), Err(CredentialFault::NotYetValid));
    let other = SessionKey::new(&[2; 32]).sign(&session("parks"));
    assert_eq!(key.verify(other.as_bytes(), NOW_S), Err(CredentialFault::Signature));
    let (message, tag) = token.rsplit_once('.').unwrap();
    let elsewhere = key.sign(&session("roads"));
    let moved = format!("{}.{tag}", elsewhere.rsplit_once('.').unwrap().0);
    let none = format!("{}.", message.replacen("HS256", "none", 1));
    for changed in
        [moved, none, format!("{message}."), message.to_owned(), format!("{token}="), String::new()]
    {
        assert!(key.verify(changed.as_bytes(), NOW_S).is_err(), "{changed}");
    }
    for index in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[index] ^= 1;
        assert!(key.verify(&changed, NOW_S).is_err(), "byte {index}");
    }
}

/// An authenticator with a tokens file of these lines, or without a file.
fn authenticator(lines: &[String]) -> (Authenticator, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let file = if lines.is_empty() { String::new() } else { path.to_str().unwrap().to_owned() };
    let settings = Settings::from_pairs([("admin.tokens_file".to_owned(), file)]);
    let mut reader = settings.reader();
    let admin = AdminConfig::read(&mut reader);
    let admin = reader.finish(admin).unwrap();
    let metrics = Metrics::new("test");
    let admin = AdminGuard::new(&admin, &metrics).unwrap();
    let key = SessionKey::new(&[1; 32]);
    (Authenticator::new(&config(&[]).unwrap(), key, admin, &metrics).unwrap(), dir)
}

fn presented(bearer: Option<&str>, cookie: Option<&str>) -> PresentedCredentials {
    let mut request = Request::builder().header(HOST, "localhost");
    if let Some(bearer) = bearer {
        request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
    }
    if let Some(cookie) = cookie {
        request = request.header(COOKIE, cookie);
    }
    let peer: std::net::SocketAddr = ([127, 0, 0, 1], 5).into();
    let mut parts = request.body(()).unwrap().into_parts().0;
    parts.extensions.insert(axum::extract::ConnectInfo(peer));
    PresentedCredentials::of(&parts)
}

#[test]
fn each_credential_proves_one_principal_and_an_invalid_one_nobody() {
    let (authenticator, _dir) = authenticator(&[administrator_line(), submitter_line()]);
    let of = |bearer: Option<&str>| authenticator.authenticate(&presented(bearer, None), NOW_S);
    assert_eq!(of(None), Ok(Principal::Anonymous), "the same machine proves nothing beside a file");
    let name = |name: &str| std::sync::Arc::<str>::from(name);
    assert_eq!(
        of(Some(ADMIN)),
        Ok(Principal::Administrator { name: name("anna"), role: Role::Admin })
    );
    let service = of(Some(SUBMITTER));
    let load = Service { name: name("load"), organisation: None, budgets: None };
    assert_eq!(service, Ok(Principal::Service(load)));
    let token = authenticator.sessions().sign(&session("parks"));
    assert!(matches!(of(Some(&token)), Ok(Principal::Person(_))));
    assert_eq!(
        of(Some(&signed(&claims(NOW_S)))),
        Err(CredentialFault::Malformed),
        "no issuer is configured"
    );
    for invalid in ["", "x", &ADMIN[1..], &format!("{token}x")] {
        assert!(of(Some(invalid)).is_err(), "{invalid}");
    }
}

#[test]
fn without_a_tokens_file_the_same_machine_is_an_administrator_unless_it_has_credentials() {
    let (authenticator, _dir) = authenticator(&[]);
    let of = |bearer, cookie| authenticator.authenticate(&presented(bearer, cookie), NOW_S);
    assert!(matches!(of(None, None), Ok(Principal::Administrator { role: Role::Admin, .. })));
    assert_eq!(of(None, Some("allocator_person=x")), Ok(Principal::Anonymous));
    assert!(of(Some(ADMIN), None).is_err());
}

#[test]
fn without_a_submitters_token_the_same_machine_is_a_service_for_what_programs_send() {
    let (administrators, _dir) = authenticator(&[administrator_line()]);
    let of = |bearer, cookie| administrators.local_service(&presented(bearer, cookie));
    let service = of(None, None).unwrap();
    assert!(&*service.name == "local" && service.acts_in("any"));
    assert_eq!(of(None, Some("allocator_person=x")), None);
    assert_eq!(of(Some("x"), None), None);
    let (services, _dir) = authenticator(&[administrator_line(), submitter_line()]);
    assert_eq!(services.local_service(&presented(None, None)), None);
}

#[test]
fn a_service_has_the_budgets_and_the_organisation_of_its_line() {
    let line = submitter_line() + " budgets=parks,roads organisation=town";
    let (authenticator, _dir) = authenticator(&[line]);
    let credentials = presented(Some(SUBMITTER), None);
    let Ok(Principal::Service(service)) = authenticator.authenticate(&credentials, NOW_S) else {
        panic!("no service");
    };
    assert_eq!(authenticator.service(&credentials), Some(service.clone()));
    let acts_in = ["parks", "roads", "park", "parks,roads", ""].map(|id| service.acts_in(id));
    assert_eq!(acts_in, [true, true, false, false, false]);
    let mut headers = http::HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {SUBMITTER}").parse().unwrap());
    assert_eq!(authenticator.service_organisation(&headers).as_deref(), Some("town"));
    assert_eq!(authenticator.service_organisation(&http::HeaderMap::new()), None);
    assert_eq!(authenticator.person_organisation(&headers, NOW_S), None);
}

#[test]
fn nothing_printed_contains_a_credential() {
    let person = SessionKey::new(&[1; 32]);
    let token = person.sign(&session("parks"));
    let printed = format!(
        "{:?} {:?}",
        presented(Some(&token), Some("c=1")),
        person.verify(token.as_bytes(), NOW_S)
    );
    assert!(!printed.contains(&token) && !printed.contains("0000A"), "{printed}");
    for fault in CredentialFault::ALL {
        assert!(!format!("{fault:?} {fault}").contains("0000A"));
    }
}

#[test]
fn the_settings_of_tokens_are_checked_together() {
    let both =
        |issuer, keys| config(&[("identity.token_issuer", issuer), ("identity.token_keys", keys)]);
    for (issuer, keys) in [
        (ISSUER, "/etc/keys.json"),
        (ISSUER, "https://id.example/keys"),
        (ISSUER, "http://127.0.0.1:9/keys"),
        ("", ""),
    ] {
        assert!(both(issuer, keys).is_ok(), "{issuer} {keys}");
    }
    for (issuer, keys) in [
        (ISSUER, ""),
        ("", "/etc/keys.json"),
        ("code", "/etc/keys.json"),
        (ISSUER, "http://id.example/keys"),
        (ISSUER, "ftp://id.example/keys"),
    ] {
        assert!(both(issuer, keys).is_err(), "{issuer} {keys}");
    }
}
