//! A policy: whom a quota counts, for which requests, in which unit. Parsed from one line of configuration.
//!
//! `NAME SCOPE ALGORITHM LIMIT/WINDOW on=CLASS[+CLASS] [burst=N] [by=requests|items] [for=public|trusted]
//! [on_outage=local-share|allow|refuse]`, for example `api address token-bucket 1000/1h on=read`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::quota::{Algorithm, Quota};

/// Maximum length of a policy's name.
const MAX_NAME_BYTES: usize = 64;

/// What a policy counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All requests.
    Global,
    /// The requests of one client address, or of one /64 network of IPv6.
    Address,
    /// The requests about one person of a budget.
    Person,
    /// The requests of one organisation.
    Organisation,
    /// The requests of one endpoint class.
    Endpoint,
}

/// Which routes a policy applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointClass {
    /// Reads of the HTTP API.
    Read,
    /// Public pages and their files.
    Page,
    /// One submission, withdrawal, or posted form.
    Submission,
    /// A batch of submissions.
    Batch,
    /// Attempts to sign in, with a code or otherwise.
    SignIn,
}

/// Which clients a policy applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientClass {
    /// Clients without credentials on other machines.
    Public,
    /// Clients with a valid token, and clients on the same machine.
    Trusted,
}

/// The unit that a policy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A request costs one.
    Requests,
    /// A batch costs as many as it has items.
    Items,
}

/// What applies while the shared counters are unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutageMode {
    /// This process grants its share of the quota.
    LocalShare,
    /// The policy limits nothing.
    Allow,
    /// Requests are answered 503.
    Refuse,
}

/// Implements the names of a closed set of values.
macro_rules! named {
    ($type:ident { $($value:ident = $name:literal),+ $(,)? }) => {
        impl $type {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// Returns the name in the configuration.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$value => $name),+ }
            }

            fn parse(name: &str) -> Result<Self, PolicyFault> {
                let found = Self::ALL.iter().copied().find(|value| value.name() == name);
                found.ok_or_else(|| PolicyFault(concat!("expected one of" $(, " `", $name, "`")+).to_owned()))
            }
        }
    };
}

named!(Scope {
    Global = "global", Address = "address", Person = "person", Organisation = "organisation", Endpoint = "endpoint",
});
named!(EndpointClass {
    Read = "read", Page = "page", Submission = "submission", Batch = "batch", SignIn = "sign-in",
});
named!(ClientClass { Public = "public", Trusted = "trusted" });
named!(Unit { Requests = "requests", Items = "items" });
named!(OutageMode { LocalShare = "local-share", Allow = "allow", Refuse = "refuse" });

/// A rate limit with its name and the requests that it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Name in headers, metrics and keys: letters, digits, `-` and `_`.
    pub name: Arc<str>,
    /// What is counted together.
    pub scope: Scope,
    /// The numbers.
    pub quota: Quota,
    /// The routes.
    pub endpoints: Vec<EndpointClass>,
    /// The clients.
    pub clients: ClientClass,
    /// The unit.
    pub unit: Unit,
    /// What applies without the shared counters.
    pub outage: OutageMode,
}

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyFault(String);

impl Policy {
    /// Parses a policy without its name.
    ///
    /// # Errors
    /// The first fault, with what is expected.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyFault> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_name) {
            return fault("a policy's name has letters, digits, `-` and `_`");
        }
        let mut words = text.split_whitespace();
        let (Some(scope), Some(algorithm), Some(rate)) = (words.next(), words.next(), words.next())
        else {
            return fault("expected SCOPE ALGORITHM LIMIT/WINDOW and options");
        };
        let (limit, window_ms) = parse_rate(rate)?;
        let (mut burst, mut endpoints) = (None, Vec::new());
        let (mut unit, mut clients) = (Unit::Requests, ClientClass::Public);
        let mut outage = OutageMode::LocalShare;
        for word in words {
            match word.split_once('=') {
                Some(("burst", number)) => burst = Some(parse_number(number)?),
                Some(("on", names)) => {
                    endpoints =
                        names.split('+').map(EndpointClass::parse).collect::<Result<_, _>>()?;
                }
                Some(("by", name)) => unit = Unit::parse(name)?,
                Some(("for", name)) => clients = ClientClass::parse(name)?,
                Some(("on_outage", name)) => outage = OutageMode::parse(name)?,
                _ => return fault("expected the options on=, burst=, by=, for= and on_outage="),
            }
        }
        if endpoints.is_empty() {
            return fault("expected on=CLASS, the routes that the policy applies to");
        }
        let quota = Quota::new(parse_algorithm(algorithm)?, limit, window_ms, burst)
            .map_err(|fault| PolicyFault(fault.to_string()))?;
        let (name, scope) = (name.into(), Scope::parse(scope)?);
        Ok(Self { name, scope, quota, endpoints, clients, unit, outage })
    }

    /// Returns what a request of so many items costs.
    pub fn cost(&self, items: u32) -> u32 {
        match self.unit {
            Unit::Requests => 1,
            Unit::Items => items,
        }
    }
}

impl FromStr for Policy {
    type Err = PolicyFault;

    /// Parses a policy that begins with its name.
    fn from_str(text: &str) -> Result<Self, PolicyFault> {
        let (name, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text, ""));
        Self::parse(name, rest)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

fn fault<T>(expected: &str) -> Result<T, PolicyFault> {
    Err(PolicyFault(expected.to_owned()))
}

fn parse_algorithm(name: &str) -> Result<Algorithm, PolicyFault> {
    let found = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
    found.ok_or_else(|| {
        let names = Algorithm::ALL.map(|algorithm| format!("`{}`", algorithm.name()));
        PolicyFault(format!("expected an algorithm: {}", names.join(", ")))
    })
}

fn parse_number(text: &str) -> Result<u32, PolicyFault> {
    text.parse().map_err(|_| PolicyFault("expected a whole number".to_owned()))
}

/// Parses `LIMIT/WINDOW`, a window being a number with `s`, `m`, `h` or `d`.
fn parse_rate(text: &str) -> Result<(u32, u64), PolicyFault> {
    let Some((limit, window)) = text.split_once('/') else {
        return fault("expected LIMIT/WINDOW, such as 100/60s");
    };
    let (number, unit) =
        window.split_at_checked(window.len().saturating_sub(1)).unwrap_or(("", ""));
    let unit_ms: u64 = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return fault("expected a window in s, m, h or d, such as 60s"),
    };
    let window_ms = u64::from(parse_number(number)?) * unit_ms;
    Ok((parse_number(limit)?, window_ms))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_from_one_line() {
        let text = "by-address address token-bucket 600/60s on=submission+batch burst=3000 by=items on_outage=refuse";
        let policy: Policy = text.parse().unwrap();
        assert_eq!((&*policy.name, policy.scope), ("by-address", Scope::Address));
        assert_eq!((policy.quota.limit(), policy.quota.window_ms()), (600, 60_000));
        assert_eq!(policy.quota.burst(), 3000);
        assert_eq!(policy.endpoints, [EndpointClass::Submission, EndpointClass::Batch]);
        assert_eq!((policy.unit, policy.outage), (Unit::Items, OutageMode::Refuse));
        assert_eq!(policy.clients, ClientClass::Public);
        assert_eq!((policy.cost(7), Policy { unit: Unit::Requests, ..policy }.cost(7)), (7, 1));
    }

    #[test]
    fn faults_say_what_is_expected() {
        for (text, expected) in [
            ("", "a policy's name"),
            ("né global fixed-window 1/1s on=read", "a policy's name"),
            ("a global fixed-window", "expected SCOPE"),
            ("a world fixed-window 1/1s on=read", "`organisation`"),
            ("a global window 1/1s on=read", "`sliding-window`"),
            ("a global fixed-window 1 on=read", "LIMIT/WINDOW"),
            ("a global fixed-window 1/1x on=read", "a window in s"),
            ("a global fixed-window 1/é on=read", "a window in s"),
            ("a global fixed-window -1/1s on=read", "whole number"),
            ("a global fixed-window 0/1s on=read", "the limit must be"),
            ("a global fixed-window 1/2d on=read", "the window must be"),
            ("a global token-bucket 1/1s on=read burst=0", "the burst must be"),
            ("a global fixed-window 1/1s", "on=CLASS"),
            ("a global fixed-window 1/1s on=reads", "`sign-in`"),
            ("a global fixed-window 1/1s on=read color=red", "the options"),
            ("a global fixed-window 1/1s on=read by=bytes", "`items`"),
            ("a global fixed-window 1/1s on=read for=all", "`trusted`"),
            ("a global fixed-window 1/1s on=read on_outage=panic", "`local-share`"),
        ] {
            let fault = text.parse::<Policy>().unwrap_err().to_string();
            assert!(fault.contains(expected), "{text}: {fault}");
        }
    }
}
