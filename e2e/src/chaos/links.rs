//! The proxies between clients, services and servers.
//!
//! Only the first service of each kind is behind proxies, so that a network fault affects one of two services.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};

use super::fault::{Kind, Link};
use super::proxy::Proxy;
use crate::own_servers::OwnServers;
use crate::stack::ServiceOverrides;
use crate::system::System;

const KINDS: [Kind; 3] = [Kind::Ingest, Kind::Processor, Kind::Api];

impl Kind {
    /// The name in programs, settings and logs.
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
    /// Starts a proxy for each link between services and servers.
    ///
    /// # Errors
    /// When a proxy cannot listen.
    pub async fn start(own: &OwnServers, redis: u16) -> Result<Self> {
        let mut proxies = BTreeMap::new();
        // Kafka advertises its address to clients, so all of them use the same proxy.
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
    /// When the link has no proxy.
    pub fn proxy(&self, link: Link) -> Result<&Proxy> {
        self.proxies.get(&link).with_context(|| format!("no proxy for {link:?}"))
    }

    /// Adds proxies in front of the first ingest and the first API. Returns the addresses for clients.
    ///
    /// # Errors
    /// When a proxy cannot listen.
    pub async fn add_client_proxies(&mut self, system: &System) -> Result<System> {
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

    /// The settings that connect the first service of each kind through the proxies.
    ///
    /// # Errors
    /// When a proxy is missing.
    pub fn overrides(&self) -> Result<HashMap<String, ServiceOverrides>> {
        let mut overrides = HashMap::new();
        for kind in KINDS {
            let settings = vec![
                format!("kafka.brokers={}", self.proxy(Link::Kafka)?.address()),
                format!("scylla.nodes={}", self.proxy(Link::Cassandra(kind))?.address()),
                format!("redis.url=redis://{}", self.proxy(Link::Redis(kind))?.address()),
            ];
            let service = ServiceOverrides { settings, environment: Vec::new() };
            overrides.insert(format!("{}-1", kind.name()), service);
        }
        Ok(overrides)
    }
}
