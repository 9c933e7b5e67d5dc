//! An ingest with a tokens file and an identity provider, and the credentials of its clients.

use std::time::Duration;

use http::Method;
use identity::{CodeKey, Serial};
use runtime::admin::{Role, TokensFile};
use runtime::clock::now_ms;
use schemas::{BudgetId, IdentityRule, PersonId, PersonKey, StoredRevocations};
use tokio_util::sync::CancellationToken;

use crate::provider;
use crate::support::{Harness, TestResponse, key_of, person_secret};

pub const OURS: (&str, &str) = ("sec-fetch-site", "same-origin");
pub const ME: &str = "/v1/budgets/taxes/submissions/me";
pub const SESSION: &str = "/v1/budgets/taxes/session";
pub const ALLOCATION: &str = r#"{"allocation":{"health":100}}"#;
pub const SUBMITTER: &str = "ssssssssssssssssssssssssssssssss";
pub const ADMIN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub const VIEWER: &str = "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv";

/// A service with a tokens file, so that the test's own machine has no rights.
pub struct Service {
    pub harness: Harness,
    _dir: tempfile::TempDir,
}

impl Service {
    pub fn new(rule: IdentityRule) -> Self {
        Self::with(rule, &[])
    }

    pub fn with(rule: IdentityRule, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let line = |name, role, token| TokensFile::line(name, role, token);
        let lines = [
            line("import", Role::Submitter, SUBMITTER),
            line("vera", Role::Viewer, VIEWER),
            line("anna", Role::Admin, ADMIN),
        ];
        let (tokens, keys) = (dir.path().join("tokens"), dir.path().join("keys.json"));
        std::fs::write(&tokens, lines.join("\n")).unwrap();
        std::fs::write(&keys, provider::key_set()).unwrap();
        let own = [
            ("admin.tokens_file", tokens.to_str().unwrap()),
            ("identity.token_issuer", provider::ISSUER),
            ("identity.token_keys", keys.to_str().unwrap()),
        ];
        let harness = Harness::with(1_000, &[&own, settings].concat());
        harness.edit_budget(|budget| budget.identity = rule);
        Self { harness, _dir: dir }
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> TestResponse {
        let json = [("content-type", "application/json")];
        self.harness.send(method, path, &[&json[..], headers].concat(), body.to_owned()).await
    }

    pub async fn post_form(
        &self,
        route: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> TestResponse {
        let form = [("content-type", "application/x-www-form-urlencoded"), OURS];
        let path = format!("/budgets/taxes/{route}");
        self.harness
            .send(Method::POST, &path, &[&form[..], headers].concat(), body.to_owned())
            .await
    }

    pub async fn session(&self, headers: &[(&str, &str)], body: &str) -> String {
        let response = self.send(Method::POST, SESSION, headers, body).await;
        assert_eq!(response.status.as_u16(), 200);
        assert_eq!(response.header("cache-control"), Some("no-store"));
        response.json()["token"].as_str().unwrap().to_owned()
    }

    /// Revokes codes of the budget, as another process does.
    pub fn revoke(&self, serials: &str) {
        let stored = StoredRevocations::Understood(serials.parse().unwrap());
        let budget = BudgetId::parse("taxes").unwrap();
        self.harness.revoked.send_modify(|revoked| assert!(revoked.add(&budget, stored)));
    }

    pub fn persons(&self) -> Vec<PersonKey> {
        self.harness.logged().into_iter().map(|(person, _)| person).collect()
    }
}

pub fn subject(issuer: &str, name: &str) -> PersonKey {
    let person = PersonId::of_issuer(issuer, name).unwrap();
    key_of(&person)
}

pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

pub fn code(serial: u32) -> String {
    let key = CodeKey::new(&person_secret(), &BudgetId::parse("taxes").unwrap());
    key.code(Serial::new(serial).unwrap())
}

/// Waits until the provider's keys are read, and returns a valid token. In a budget that takes it, it has submitted.
pub async fn until_keys_are_read(service: &Service) -> String {
    let stop = CancellationToken::new();
    tokio::spawn(service.harness.authorizer.clone().run(stop));
    let token = provider::signed(&provider::claims(now_ms() / 1_000));
    let header = bearer(&token);
    loop {
        let response =
            service.send(Method::PUT, ME, &[("authorization", &header)], ALLOCATION).await;
        if response.status.as_u16() != 503 {
            return token;
        }
        // The background task announces nothing: a pause between two tries.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
