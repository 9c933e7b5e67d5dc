//! The proxies: the first of each kind of service reaches every server through one, and is reached by clients through
//! one.
//!
//! The others do without, so that trouble on a link meets one side of a pair.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};

use super::fault::{Kind, Link};
use super::proxy::Proxy;
use crate::own_servers::OwnServers;
use crate::stack::Special;
use crate::system::System;

const KINDS: [Kind; 3] = [Kind::Ingest, Kind::Processor, Kind::Api];

impl Kind {
    /// Its name, as programs, settings and logs have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Processor => "processor",
            Self::Api => "api",
        }
    }
}

/// All proxies.
#[derive(Debug)]
pub struct Links {
    proxies: BTreeMap<Link, Proxy>,
}

impl Links {
    /// Starts a proxy for each link.
    ///
    /// # Errors
    /// When one cannot listen.
    pub async fn start(own: &OwnServers, redis: u16) -> Result<Self> {
        let mut proxies = BTreeMap::new();
        // Kafka tells its clients where it is: all of them come through the one place that it names.
        let kafka = Proxy::start(own.kafka_proxy(), own.kafka_behind_proxy()).await?;
        proxies.insert(Link::Kafka, kafka);
        for kind in KINDS {
            proxies.insert(Link::Cassandra(kind), Proxy::start(0, own.cassandra()).await?);
            proxies.insert(Link::Redis(kind), Proxy::start(0, redis).await?);
        }
        Ok(Self { proxies })
    }

    /// The proxy of a link.
    ///
    /// # Errors
    /// When there is none.
    pub fn proxy(&self, link: Link) -> Result<&Proxy> {
        self.proxies.get(&link).with_context(|| format!("no proxy for {link:?}"))
    }

    /// Puts a proxy in front of the first ingest and the first API. Gives the addresses that clients use from then on.
    ///
    /// # Errors
    /// When one cannot listen.
    pub async fn in_front_of(&mut self, system: &System) -> Result<System> {
        let mut clients = system.clone();
        for (kind, urls) in [(Kind::Ingest, &mut clients.writes), (Kind::Api, &mut clients.reads)] {
            let first = urls.first_mut().with_context(|| format!("no {kind:?}"))?;
            let port = first.rsplit(':').next().unwrap_or_default().parse()?;
            let proxy = Proxy::start(0, port).await?;
            *first = format!("http://{}", proxy.address());
            self.proxies.insert(Link::Client(kind), proxy);
        }
        Ok(clients)
    }

    /// What the first of each kind needs to go through the proxies.
    ///
    /// # Errors
    /// When a proxy is missing.
    pub fn specials(&self) -> Result<HashMap<String, Special>> {
        let mut specials = HashMap::new();
        for kind in KINDS {
            let settings = vec![
                format!("kafka.brokers={}", self.proxy(Link::Kafka)?.address()),
                format!("scylla.nodes={}", self.proxy(Link::Cassandra(kind))?.address()),
                format!("redis.url=redis://{}", self.proxy(Link::Redis(kind))?.address()),
            ];
            let special = Special { settings, environment: Vec::new() };
            specials.insert(format!("{}-1", kind.name()), special);
        }
        Ok(specials)
    }
}
