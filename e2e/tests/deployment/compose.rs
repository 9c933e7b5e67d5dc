//! Parses `docker-compose.yml` and the configuration of its services.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::code;

/// The checked parts of `docker-compose.yml`.
#[derive(Debug, Deserialize)]
pub struct Compose {
    pub services: BTreeMap<String, Service>,
    pub volumes: BTreeMap<String, Option<Value>>,
    pub secrets: BTreeMap<String, Secret>,
}

/// A service of the compose file.
#[derive(Debug, Deserialize)]
pub struct Service {
    pub image: String,
    pub restart: Option<String>,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, Value>,
    #[serde(default)]
    pub volumes: Vec<String>,
    #[serde(default)]
    pub secrets: Vec<String>,
    #[serde(default)]
    pub ports: Vec<String>,
    #[serde(default)]
    pub depends_on: BTreeMap<String, Dependency>,
    pub healthcheck: Option<Healthcheck>,
    pub build: Option<String>,
    #[serde(default)]
    pub deploy: Value,
}

/// A dependency on another service.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    pub condition: String,
}

/// A container's health check.
#[derive(Debug, Deserialize)]
pub struct Healthcheck {
    pub test: Vec<String>,
}

/// A secret read from a file.
#[derive(Debug, Deserialize)]
pub struct Secret {
    pub file: String,
}

impl Compose {
    pub fn read() -> Self {
        yaml("docker-compose.yml")
    }

    /// Returns the services that run a binary of this workspace.
    pub fn ours(&self) -> impl Iterator<Item = (&str, &Service)> {
        self.services
            .iter()
            .filter(|(_, service)| service.build.is_some())
            .map(|(name, service)| (name.as_str(), service))
    }

    /// Returns the port that each service listens on inside its container.
    ///
    /// The ports of our services, Kafka and nginx come from their configuration; the others are their images' defaults.
    pub fn listening(&self) -> BTreeMap<&str, u16> {
        let configuration = configuration();
        self.services
            .iter()
            .map(|(name, service)| {
                let port = match name.as_str() {
                    "gateway" => gateway_port(),
                    "kafka" => {
                        port_of(service.environment["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap())
                    }
                    "scylla" => 9042,
                    "redis" | "limits-redis" => 6379,
                    "prometheus" => 9090,
                    "grafana" => 3000,
                    ours => port_of(&configuration[&format!("{}.listen", service.binary(ours))]),
                };
                (name.as_str(), port)
            })
            .collect()
    }
}

impl Service {
    /// Returns the binary that one of our services runs.
    pub fn binary(&self, name: &str) -> &str {
        self.command.first().unwrap_or_else(|| panic!("{name} has no command"))
    }

    /// Returns sources and targets of the mounts.
    pub fn mounts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.volumes.iter().map(|volume| {
            let mut parts = volume.split(':');
            (parts.next().unwrap(), parts.next().unwrap())
        })
    }

    /// Maps a path inside the container to a path in the repository.
    pub fn in_repository(&self, path: &str) -> Option<String> {
        self.mounts().find_map(|(source, target)| {
            let rest = path.strip_prefix(target)?;
            Some(format!("{}{rest}", source.strip_prefix("./")?))
        })
    }
}

/// Reads the settings of `deploy/allocator.toml`, by dotted name.
pub fn configuration() -> BTreeMap<String, String> {
    let table: toml::Table = code::read("deploy/allocator.toml").parse().unwrap();
    table
        .iter()
        .flat_map(|(section, keys)| {
            let keys = keys.as_table().unwrap_or_else(|| panic!("{section} is not a section"));
            keys.iter().map(move |(key, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (format!("{section}.{key}"), text)
            })
        })
        .collect()
}

/// Parses a YAML file of the repository.
pub fn yaml<T: serde::de::DeserializeOwned>(path: &str) -> T {
    serde_saphyr::from_str(&code::read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Parses the port of an address.
pub fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap_or_else(|_| panic!("no port in {address}"))
}

fn gateway_port() -> u16 {
    let nginx = code::read("deploy/nginx.conf");
    let (_, rest) = nginx.split_once("listen ").unwrap();
    rest.split([' ', ';']).next().unwrap().parse().unwrap()
}
