//! The deployment files match the code and each other.
//!
//! The checks are static and need no Docker engine; nginx and Prometheus check their files with their own tools.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod code;
mod compose;
mod documents;
mod gateway;
mod mutants;
mod observability;
mod promql;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use compose::{Compose, configuration, port_of};

#[test]
fn every_command_is_a_binary_of_the_image() {
    let binaries = code::binaries();
    let dockerfile = code::read("Dockerfile");
    let compose = Compose::read();
    assert_eq!(compose.ours().count(), 3);
    for (name, service) in compose.ours() {
        let binary = service.binary(name);
        assert!(binaries.contains(binary), "{name}: {binary} is not a binary of the workspace");
        assert!(
            dockerfile.contains(&format!("target/release/{binary}")),
            "{name}: {binary} is not in the image"
        );
        let ["--config", file] = [service.command[1].as_str(), &service.command[2]] else {
            panic!("{name} is not started with --config");
        };
        assert_eq!(service.in_repository(file).as_deref(), Some("deploy/allocator.toml"), "{name}");
    }
}

#[test]
fn the_image_contains_all_binaries_for_operators_and_does_not_run_as_root() {
    let dockerfile = code::read("Dockerfile");
    let (_, copied) = dockerfile.split_once("install -D -t /out/ ").unwrap();
    let contained: BTreeSet<&str> = copied
        .lines()
        .next()
        .unwrap()
        .split(' ')
        .map(|path| path.strip_prefix("target/release/").unwrap())
        .collect();
    assert_eq!(contained, BTreeSet::from(["allocator", "api", "ingest", "processor"]));
    let binaries = code::binaries();
    assert!(
        contained.iter().all(|binary| binaries.contains(*binary)),
        "{contained:?} of {binaries:?}"
    );
    let user =
        dockerfile.lines().filter_map(|line| line.strip_prefix("USER ")).next_back().unwrap();
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "USER {user}");
}

#[test]
fn every_crate_is_copied_into_the_image_build() {
    let ignore = code::read(".dockerignore");
    let kept: BTreeSet<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let workspace: toml::Table = code::read("Cargo.toml").parse().unwrap();
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        assert!(
            kept.contains(member.as_str().unwrap()),
            "{member} is not copied into the image's build"
        );
    }
}

#[test]
fn the_image_halts_at_an_overflow() {
    let workspace: toml::Table = code::read("Cargo.toml").parse().unwrap();
    let release = &workspace["profile"]["release"];
    assert_eq!(release["overflow-checks"].as_bool(), Some(true), "a count would wrap around");
    assert!(code::read("Dockerfile").contains("cargo build --release"));
}

#[test]
fn every_setting_is_a_known_key() {
    let known = code::settings();
    assert!(
        known.contains("kafka.brokers"),
        "no settings found in docs/configuration.md: {known:?}"
    );
    for name in configuration().keys() {
        assert!(known.contains(name), "deploy/allocator.toml: {name}");
    }
    let dockerfile = code::read("Dockerfile");
    let (_, set) = dockerfile.split_once("\"--set\", \"").unwrap();
    let (set, _) = set.split_once('=').unwrap();
    assert!(known.contains(set), "Dockerfile: --set {set}");
    for (service, definition) in Compose::read().ours() {
        for variable in definition.environment.keys() {
            let name = variable
                .strip_prefix("ALLOCATOR__")
                .unwrap_or_else(|| panic!("{service}: {variable}"));
            let name = name.to_lowercase().replace("__", ".");
            assert!(known.contains(&name), "{service}: {variable} is not a setting");
        }
    }
}

#[test]
fn every_configured_address_is_a_service_and_its_port() {
    let compose = Compose::read();
    let listening = compose.listening();
    let settings = configuration();
    let [redis, limits] = ["redis.url", "redis.limits_url"]
        .map(|key| settings[key].strip_prefix("redis://").unwrap());
    for address in [&settings["kafka.brokers"], &settings["scylla.nodes"], redis, limits] {
        let (host, _) = address.split_once(':').unwrap();
        assert_eq!(listening.get(host), Some(&port_of(address)), "{address}");
    }
    for (name, service) in compose.ours() {
        let listen: SocketAddr =
            settings[&format!("{}.listen", service.binary(name))].parse().unwrap();
        assert!(listen.ip().is_unspecified(), "{name}: other containers cannot reach {listen}");
    }
}

#[test]
fn ids_and_limits_are_on_a_server_that_evicts_nothing_and_has_no_answers() {
    let (compose, settings) = (Compose::read(), configuration());
    let limits = settings.get("redis.limits_url").unwrap();
    for url in [limits, settings.get("redis.ids_url").unwrap_or(limits)] {
        assert_ne!(*url, settings["redis.url"]);
        let (host, _) = url.strip_prefix("redis://").unwrap().split_once(':').unwrap();
        let command = compose.services[host].command.join(" ");
        assert!(command.contains("--maxmemory-policy noeviction"), "{host}: {command}");
    }
}

#[test]
fn every_service_has_a_restart_policy_limits_and_a_health_check_on_its_port() {
    let compose = Compose::read();
    let listening = compose.listening();
    for (name, service) in &compose.services {
        assert_eq!(service.restart.as_deref(), Some("unless-stopped"), "{name}");
        let limits = &service.deploy["resources"]["limits"];
        assert!(limits["cpus"].is_string() && limits["memory"].is_string(), "{name} has no limits");
        let test = service
            .healthcheck
            .as_ref()
            .unwrap_or_else(|| panic!("{name} has no health check"))
            .test
            .join(" ");
        assert!(test.starts_with("CMD "), "{name}: {test}");
        if let Some((_, url)) = test.split_once("http://127.0.0.1:") {
            let (port, path) = url.split_once('/').unwrap();
            assert_eq!(port, listening[name.as_str()].to_string(), "{name}");
            match name.as_str() {
                "gateway" => assert!(
                    code::read("deploy/nginx.conf").contains(&format!("location = /{path} "))
                ),
                _ if service.build.is_some() => assert_eq!(path, "readyz", "{name}"),
                _ => {}
            }
        } else {
            let port = listening[name.as_str()].to_string();
            assert!(
                test.contains(&port) || test.contains(&format!("cqlsh {name} ")),
                "{name}: {test}"
            );
        }
    }
}

#[test]
fn every_dependency_is_a_service_that_must_become_healthy() {
    let compose = Compose::read();
    for (name, service) in &compose.services {
        for (other, dependency) in &service.depends_on {
            assert!(compose.services.contains_key(other), "{name} waits for {other}");
            assert_eq!(dependency.condition, "service_healthy", "{name} waits for {other}");
        }
    }
    let gateway: Vec<&str> =
        compose.services["gateway"].depends_on.keys().map(String::as_str).collect();
    assert_eq!(gateway, ["api", "ingest"]);
}

#[test]
fn every_mounted_path_is_in_the_repository_and_every_volume_is_declared() {
    let compose = Compose::read();
    let mut used = BTreeSet::new();
    for (name, service) in &compose.services {
        for (source, target) in service.mounts() {
            if let Some(path) = source.strip_prefix("./") {
                assert!(code::root().join(path).exists(), "{name}: {source}");
                assert!(
                    service.volumes.iter().any(|v| v == &format!("{source}:{target}:ro")),
                    "{name} may write {source}"
                );
            } else {
                used.insert(source);
            }
        }
    }
    assert_eq!(used, compose.volumes.keys().map(String::as_str).collect());
}

#[test]
fn every_secret_is_generated_ignored_by_git_and_mounted_where_it_is_read() {
    let compose = Compose::read();
    let script = code::read("local/secrets");
    let ignored = code::read(".gitignore");
    assert!(
        ignored.lines().any(|line| line == "/secrets")
            && ignored.lines().any(|line| line == "/.env")
    );
    assert!(
        code::read("docker-compose.yml").contains("${KAFKA_CLUSTER_ID:?")
            && script.contains("KAFKA_CLUSTER_ID=")
    );
    for (name, secret) in &compose.secrets {
        assert_eq!(secret.file, format!("./secrets/{name}"));
        let made = |by: &str| script.contains(&format!("\n{by} {name}\n"));
        assert!(made("make_secret") || made("make_tokens_file"), "{name} is not generated");
    }
    let shared: Vec<String> = configuration().into_values().collect();
    for (name, service) in &compose.services {
        let own = service.environment.values().filter_map(|value| value.as_str());
        let configured = shared.iter().map(String::as_str).filter(|_| service.build.is_some());
        let read: BTreeSet<&str> =
            own.chain(configured).filter_map(|value| value.strip_prefix("/run/secrets/")).collect();
        assert_eq!(read, service.secrets.iter().map(String::as_str).collect(), "{name}");
        assert!(
            read.iter().all(|secret| compose.secrets.contains_key(*secret)),
            "{name}: {read:?}"
        );
    }
}

#[test]
fn only_ingest_and_api_have_the_person_secret_and_the_administrators_tokens() {
    let compose = Compose::read();
    for secret in ["person.secret", "admin.tokens"] {
        let readers = compose
            .services
            .iter()
            .filter(|(_, service)| service.secrets.iter().any(|mounted| mounted == secret));
        let readers: Vec<&str> = readers.map(|(name, _)| name.as_str()).collect();
        assert_eq!(readers, ["api", "ingest"], "{secret}");
    }
}

#[test]
fn only_the_gateway_grafana_and_prometheus_are_published_and_only_on_loopback() {
    let compose = Compose::read();
    let listening = compose.listening();
    let mut published = BTreeSet::new();
    for (name, service) in &compose.services {
        for port in &service.ports {
            let inside = listening[name.as_str()];
            assert_eq!(*port, format!("127.0.0.1:{inside}:{inside}"), "{name}");
            published.insert(name.as_str());
        }
    }
    assert_eq!(published, BTreeSet::from(["gateway", "grafana", "prometheus"]));
}

#[test]
fn every_image_is_pinned() {
    let compose = Compose::read();
    let dockerfile = code::read("Dockerfile");
    let foreign = compose
        .services
        .values()
        .filter(|service| service.build.is_none())
        .map(|s| s.image.as_str());
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next());
    for image in foreign.chain(bases) {
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        let pinned = tag != "latest"
            && (tag.contains(|c: char| c.is_ascii_digit()) || tag.starts_with("bookworm"));
        assert!(pinned, "{image}");
    }
}
