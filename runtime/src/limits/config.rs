//! The settings of rate limits: one key for each default policy, and further ones.

use std::sync::Arc;

use super::policy::Policy;
use crate::config::{Reader, parse, settings};

/// A default policy as configured; `None` if it is switched off.
type Setting = Option<Policy>;

settings! {
    /// The policies as configured.
    #[derive(Debug, Clone)]
    struct PolicySettings {
        /// Limit `general`, of reads: `SCOPE ALGORITHM LIMIT/WINDOW on=CLASS+CLASS` and maybe `burst=`, `by=`, `for=`
        /// and `on_outage=`, or `off` (see [limits](operations/limits.md)). The burst is for addresses that many people
        /// share.
        general: Setting = "limits.general", default "address token-bucket 100/60s burst=1000 on=read",
            unit "limit", parse general;
        /// Limit `pages`, of pages, their files and streams of answers: as `limits.general`.
        pages: Setting = "limits.pages", default "address token-bucket 6000/60s on=page",
            unit "limit", parse pages;
        /// Limit `person`, of submissions and withdrawals about one person: as `limits.general`.
        person: Setting = "limits.person", default "person sliding-window 30/60s by=items on=submission+batch",
            unit "limit", parse person;
        /// Limit `submissions`, of submissions and withdrawals from one address: as `limits.general`. Generous, because
        /// schools and mobile carriers share addresses.
        submissions: Setting = "limits.submissions",
            default "address token-bucket 600/60s burst=3000 by=items on=submission+batch",
            unit "limit", parse submissions;
        /// Limit `uploads`, of batches: as `limits.general`.
        uploads: Setting = "limits.uploads", default "address fixed-window 10/60s on=batch",
            unit "limit", parse uploads;
        /// Limit `sign-in`, of attempts to sign in: as `limits.general`.
        sign_in: Setting = "limits.sign_in", default "address leaky-bucket 10/60s burst=9 on=sign-in",
            unit "limit", parse sign_in;
        /// Limit `services`, of reads with tokens of services of one organisation: as `limits.general`.
        services: Setting = "limits.services", default "organisation sliding-window 1000/1h on=read for=trusted",
            unit "limit", parse services;
        /// Further limits, each a name and then as `limits.general`, for example `api address fixed-window 5000/1h
        /// on=read`.
        extra: Vec<Policy> = "limits.extra", default "",
            unit "limits", parse extra;
        /// Number of processes that share the counters in Redis. While Redis is unreachable, each grants the part of a
        /// limit that this number gives it.
        instances: u32 = "limits.instances", default "2",
            unit "processes", parse parse::positive_u32;
    }
}

/// Rate limits of requests.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// The policies.
    pub policies: Vec<Arc<Policy>>,
    /// Number of processes that share the counters.
    pub instances: u32,
}

impl LimitsConfig {
    /// The keys, for the configuration reference.
    pub const KEYS: &'static [crate::config::KeyDoc] = PolicySettings::KEYS;

    /// Reads the settings. `None` if the reader recorded a fault.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let settings = PolicySettings::read(reader)?;
        let PolicySettings {
            general,
            pages,
            person,
            submissions,
            uploads,
            sign_in,
            services,
            extra,
            instances,
        } = settings;
        // The last release had no limit of this name, so one of `limits.extra` may be called so.
        let is_default = services
            == PolicySettings::services
                .default
                .and_then(|text| self::services(text).ok())
                .flatten();
        let services = services
            .filter(|limit| !is_default || extra.iter().all(|other| other.name != limit.name));
        let defaults = [general, pages, person, submissions, uploads, sign_in, services];
        let named = defaults.into_iter().flatten();
        let policies: Vec<Arc<Policy>> = named.chain(extra).map(Arc::new).collect();
        for (index, policy) in policies.iter().enumerate() {
            if policies.iter().take(index).any(|other| other.name == policy.name) {
                let message = format!("expected names that differ, and two are `{}`", policy.name);
                reader.fault(PolicySettings::extra.name, message);
                return None;
            }
        }
        Some(Self { policies, instances })
    }
}

fn named(name: &str, text: &str) -> Result<Setting, String> {
    if text.trim() == "off" {
        return Ok(None);
    }
    Policy::parse(name, text).map(Some).map_err(|fault| fault.to_string())
}

fn general(text: &str) -> Result<Setting, String> {
    named("general", text)
}

fn pages(text: &str) -> Result<Setting, String> {
    named("pages", text)
}

fn person(text: &str) -> Result<Setting, String> {
    named("person", text)
}

fn submissions(text: &str) -> Result<Setting, String> {
    named("submissions", text)
}

fn uploads(text: &str) -> Result<Setting, String> {
    named("uploads", text)
}

fn sign_in(text: &str) -> Result<Setting, String> {
    named("sign-in", text)
}

fn services(text: &str) -> Result<Setting, String> {
    named("services", text)
}

fn extra(text: &str) -> Result<Vec<Policy>, String> {
    let policies = text.split(',').map(str::trim).filter(|policy| !policy.is_empty());
    policies.map(|policy| policy.parse::<Policy>().map_err(|fault| fault.to_string())).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Settings, defaults};

    fn read(pairs: &[(&str, &str)]) -> Result<LimitsConfig, String> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let settings = Settings::from_pairs(pairs);
        let mut reader = settings.reader();
        let config = LimitsConfig::read(&mut reader);
        reader.finish(config).map_err(|faults| faults.to_string())
    }

    fn names(config: &LimitsConfig) -> Vec<&str> {
        config.policies.iter().map(|policy| &*policy.name).collect()
    }

    #[test]
    fn every_default_parses() {
        let config = defaults(LimitsConfig::read);
        let expected =
            ["general", "pages", "person", "submissions", "uploads", "sign-in", "services"];
        assert_eq!(names(&config), expected);
    }

    #[test]
    fn policies_can_be_switched_off_and_added() {
        let extra =
            "api address fixed-window 1000/1h on=read, all global leaky-bucket 9/1s on=batch";
        let config = read(&[("limits.general", "off"), ("limits.extra", extra)]).unwrap();
        let expected =
            ["pages", "person", "submissions", "uploads", "sign-in", "services", "api", "all"];
        assert_eq!(names(&config), expected);
    }

    #[test]
    fn a_further_limit_named_services_takes_the_place_of_the_default_one() {
        let extra = "services organisation fixed-window 5/1h on=read for=trusted";
        let config = read(&[("limits.extra", extra)]).unwrap();
        let services: Vec<_> = config.policies.iter().filter(|p| &*p.name == "services").collect();
        assert_eq!((services.len(), services[0].quota.limit()), (1, 5));
        let own = ("limits.services", "organisation fixed-window 9/1h on=read for=trusted");
        let error = read(&[("limits.extra", extra), own]).unwrap_err();
        assert!(error.contains("`services`"), "{error}");
    }

    #[test]
    fn a_fault_names_the_key_and_what_is_expected() {
        let error = read(&[("limits.person", "person fixed-window 30 on=read")]).unwrap_err();
        assert!(error.contains("limits.person") && error.contains("LIMIT/WINDOW"), "{error}");
        let twice = "pages global fixed-window 1/1s on=read";
        let error = read(&[("limits.extra", twice)]).unwrap_err();
        assert!(error.contains("limits.extra") && error.contains("`pages`"), "{error}");
    }
}
