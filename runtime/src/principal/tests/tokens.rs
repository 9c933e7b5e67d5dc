//! An identity provider: its keys, its tokens, and tokens forged in every way that we know.
//!
//! Uses nothing of the crate, so that the tests of `ingest` and `api` include this file too.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

/// The issuer.
pub const ISSUER: &str = "https://id.example";

/// A token of `openssl dgst -sha256 -sign` and the modulus of its key.
pub const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJzdWIiOiJzLTEiLCJhdWQiOiJ\
     hbGxvY2F0b3IiLCJuYmYiOjEwMDAsImV4cCI6MjAwMH0.qHGvDBzx0CfUmicgVc64WfMEygmNVVEk0ihMhybnFXayhJoKPRBqVRV\
     JvWoGu9nbRLBubDYgcKNsThcwDnk76_emvq0kZ76Jc_nQ5LspE9Mgd-xiIcrlpOlNdnENH7K955UZ5JoXuCwNT2Er0NtaUhedJRZ\
     VlTFByfFhCNDjDkc_dqdUOOtw_CY-QqJIA9XG7vdGIEnUFlKAKad3EpIJzRk2N95w3bhiSjpMmP7vIzqkNaXIsADAbAEHOzUqdNu\
     hnDZZHdCE0E7pkdce7aFa3wT9axi6YftZFSB3KoUkc6OT62UrvxEaD_YIc4d2jzzXbOcRPB-QT07Qv30pDw_UFA";
pub const RSA_MODULUS: &str = "rggAnn1R8iFnN0h1kyiEvEYh_g20NNC91UJ6_nGdzQJS5IW7e4ZTIdp2frCRa1yLspMN_dg5O-8qO14FMCZmqb4vsgI9W7f9t6V4\
     cmIjBXrDTndwMHoyizsL54Y786ETZM821afdWUEDkMvHnV9nbkYk08yrs-QrqZELB6iPIJVsf2q69ZmNe_CWVl_hJCIFvARYq_Nh\
     cb4pPVoJrf-ZG6yhOWb8Fpd-6kmHs6-fJiL5R1kO2iDIfgsGmfigEwZbQEXAJwQxy190tB9aMS0351i2y02b9_6qxRr3eU3n3nsm\
     jdR_QxjP73D1XKkP_lLSC-NO2328BjFCcc4qDRjT7Q";

pub static ED25519: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());
pub static P256: LazyLock<EcdsaKeyPair> = LazyLock::new(|| {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap()
});

/// The provider's keys (JWKS), some of which must not be used.
pub fn key_set() -> String {
    let point = P256.public_key().as_ref();
    let keys = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "alg": "EdDSA", "x": encode(ED25519.public_key().as_ref())},
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": encode(&point[1..33]), "y": encode(&point[33..])},
        {"kty": "RSA", "kid": "rsa", "n": RSA_MODULUS, "e": "AQAB"},
        {"kty": "oct", "kid": "shared", "k": encode(&[9; 32])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "encryption", "use": "enc", "x": encode(ED25519.public_key().as_ref())},
    ]});
    keys.to_string()
}

/// The claims of a token that is valid now.
pub fn claims(now_s: u64) -> Value {
    json!({"iss": ISSUER, "sub": "s-1", "aud": "allocator", "nbf": now_s - 500, "exp": now_s + 500})
}

pub fn message(header: &Value, claims: &str) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.as_bytes()))
}

pub fn signed_by_ed25519(header: &Value, claims: &str) -> String {
    let message = message(header, claims);
    let signature = ED25519.sign(message.as_bytes());
    format!("{message}.{}", encode(signature.as_ref()))
}

pub fn signed(claims: &Value) -> String {
    signed_by_ed25519(&json!({"alg": "EdDSA", "kid": "ed"}), &claims.to_string())
}

/// Each forged token, after what is wrong with it.
pub fn forged(now_s: u64) -> Vec<(&'static str, String)> {
    let good = signed(&claims(now_s));
    let text = claims(now_s).to_string();
    let with = |name: &str, value: Value| {
        let mut claims = claims(now_s);
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = claims(now_s);
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let header = |header: Value| signed_by_ed25519(&header, &text);
    let hmac_with = |secret: &[u8], kid: &str| {
        let message = message(&json!({"alg": "HS256", "kid": kid}), &text);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        format!("{message}.{}", encode(tag.as_ref()))
    };
    let as_session = {
        let message = message(&json!({"alg": "HS256", "typ": "JWT"}), &text);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[9; 32]), message.as_bytes());
        format!("{message}.{}", encode(tag.as_ref()))
    };
    let unsigned = |alg: &str| format!("{}.", message(&json!({"alg": alg}), &text));
    let (start, signature) = good.rsplit_once('.').unwrap();
    let other_payload = encode(with("sub", json!("s-2")).to_string().as_bytes());
    let other_payload = format!("{}.{other_payload}.{signature}", good.split('.').next().unwrap());
    let twice = text.replacen('{', "{\"sub\":\"s-2\",", 1);
    vec![
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("no signature", format!("{start}.")),
        ("an empty token", ".".repeat(2)),
        ("HS256 with the public key as its secret", hmac_with(ED25519.public_key().as_ref(), "ed")),
        ("HS256 with the RSA modulus as its secret", hmac_with(RSA_MODULUS.as_bytes(), "rsa")),
        ("HS256 with a published secret", hmac_with(&[9; 32], "shared")),
        ("HS256 as sessions have it, with a published secret", as_session),
        ("RS256 with the key of EdDSA", header(json!({"alg": "RS256", "kid": "ed"}))),
        ("ES256 with the signature of EdDSA", header(json!({"alg": "ES256", "kid": "ec"}))),
        ("EdDSA with the key of RS256", header(json!({"alg": "EdDSA", "kid": "rsa"}))),
        ("another kid", header(json!({"alg": "EdDSA", "kid": "other"}))),
        ("a kid with a path", header(json!({"alg": "EdDSA", "kid": "../../dev/null"}))),
        ("the kid of an encryption key", header(json!({"alg": "EdDSA", "kid": "encryption"}))),
        ("a kid that is a number", header(json!({"alg": "EdDSA", "kid": 1}))),
        (
            "a key in its header",
            header(json!({"alg": "EdDSA", "kid": "own", "jwk": {"kty": "OKP"}})),
        ),
        (
            "a critical extension",
            header(json!({"alg": "EdDSA", "kid": "ed", "crit": ["b64"], "b64": false})),
        ),
        ("no alg", header(json!({"kid": "ed"}))),
        ("another payload under its signature", other_payload),
        (
            "a damaged signature",
            format!(
                "{start}.{}{}",
                if signature.starts_with('A') { 'B' } else { 'A' },
                &signature[1..]
            ),
        ),
        ("expired", signed(&with("exp", json!(now_s)))),
        ("not valid yet", signed(&with("nbf", json!(now_s + 100)))),
        ("exp as text", signed(&with("exp", json!((now_s + 500).to_string())))),
        ("exp with a fraction", signed(&with("exp", json!(now_s as f64 + 500.5)))),
        ("a negative nbf", signed(&with("nbf", json!(-1)))),
        ("no exp", signed(&without("exp"))),
        ("no nbf", signed(&without("nbf"))),
        ("no sub", signed(&without("sub"))),
        ("no aud", signed(&without("aud"))),
        ("no iss", signed(&without("iss"))),
        ("another audience", signed(&with("aud", json!(["other", "allocator2"])))),
        ("another issuer", signed(&with("iss", json!("https://id.example/")))),
        ("an empty subject", signed(&with("sub", json!("")))),
        ("a subject with a control character", signed(&with("sub", json!("\u{3}code\u{3}1")))),
        ("a long subject", signed(&with("sub", json!("s".repeat(257))))),
        ("budgets that are no list", signed(&with("budgets", json!("parks")))),
        ("an organisation that is a number", signed(&with("organisation", json!(7)))),
        ("the subject twice", signed_by_ed25519(&json!({"alg": "EdDSA", "kid": "ed"}), &twice)),
        ("claims that are a list", signed(&json!([1]))),
        ("oversized", signed(&with("name", json!("x".repeat(5_000))))),
        ("a fourth part", format!("{good}.e30")),
        ("padding", format!("{good}=")),
        ("a space", good.replacen('.', " .", 1)),
    ]
}

/// Encodes as base64url without padding.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
