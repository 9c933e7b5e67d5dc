//! The compose gateway: its upstreams exist, nginx accepts it, and it matches the local stack's except for addresses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::ensure;
use e2e::nginx::Nginx;
use e2e::port::free_port;
use e2e::scenario::scenario;
use tempfile::TempDir;

use crate::code;
use crate::compose::Compose;

/// Extracts the lines `server HOST:PORT ...;` of the upstreams.
fn upstreams(nginx: &str) -> Vec<(&str, u16)> {
    nginx
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("server ")?.split([' ', ';']).next()?.split_once(':')
        })
        .map(|(host, port)| (host, port.parse().unwrap()))
        .collect()
}

#[test]
fn every_upstream_is_a_service_and_the_port_it_listens_on() {
    let nginx = code::read("deploy/nginx.conf");
    let compose = Compose::read();
    let listening = compose.listening();
    let api = ("api", listening["api"]);
    assert_eq!(upstreams(&nginx), [("ingest", listening["ingest"]), api, api]);
}

/// The gateway's configuration, so that it runs from a folder on a port of this machine, with changes.
struct LocalConfiguration {
    dir: TempDir,
    file: PathBuf,
}

impl LocalConfiguration {
    /// Removes `resolve`: Debian's nginx is older than the image's and resolves upstreams at startup.
    fn write(port: u16, changes: &[(&str, &str)]) -> Self {
        let nginx = code::read("deploy/nginx.conf");
        let dir = tempfile::tempdir().unwrap();
        // When started by root, nginx creates its temporary folders as another user.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut local = nginx
            .replace("/tmp/", &format!("{}/", dir.path().display()))
            .replace(" resolve;", ";")
            .replace("listen 8000 ", &format!("listen 127.0.0.1:{port} "));
        for (host, port) in upstreams(&nginx) {
            local = local
                .replace(&format!("server {host}:{port}"), &format!("server 127.0.0.1:{port}"));
        }
        for (from, to) in changes {
            assert!(local.contains(from), "no `{from}`");
            local = local.replace(from, to);
        }
        let file = dir.path().join("nginx.conf");
        fs::write(&file, local).unwrap();
        Self { dir, file }
    }
}

/// The search path with the folders of Debian's nginx.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap())
}

#[test]
fn nginx_accepts_the_configuration() {
    let local = LocalConfiguration::write(8000, &[]);
    let output = Command::new("nginx")
        .env("PATH", path())
        .args(["-t", "-e", "stderr", "-c"])
        .arg(&local.file)
        .output()
        .expect("nginx is needed: local/install nginx");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Names clients as a proxy in front does, and lets each client send one request a minute.
#[test]
fn the_gateways_limits_count_an_ipv6_network_as_one_client_as_the_services_do() {
    scenario(async || {
        let port = free_port()?;
        let local = LocalConfiguration::write(
            port,
            &[
                ("# set_real_ip_from 10.0.0.0/8;", "set_real_ip_from 127.0.0.0/8;"),
                ("# real_ip_", "real_ip_"),
                ("zone=requests:10m rate=1000r/s;", "zone=requests:10m rate=1r/m;"),
                ("limit_req zone=requests burst=2000 nodelay;", "limit_req zone=requests;"),
                // No service listens on port 9.
                ("server 127.0.0.1:8001 ", "server 127.0.0.1:9 "),
                ("server 127.0.0.1:8002 ", "server 127.0.0.1:9 "),
            ],
        );
        let [path, file] = [format!("PATH={}", path()), local.file.display().to_string()];
        let arguments = [&path, "nginx", "-e", "stderr", "-c", &file];
        let url = format!("http://127.0.0.1:{port}");
        let ready_url = format!("{url}/.gateway/livez");
        let _nginx =
            Nginx::start("gateway", local.dir.path(), "env", arguments, &ready_url).await?;
        let client = e2e::http_client::builder().build()?;
        for (address, status) in [
            ("2001:db8:1:2::1", 503),
            ("2001:db8:1:2:ffff::9", 429),
            ("2001:db8:1:3::1", 503),
            // Bytes that are line feeds.
            ("2001:a0a:a0a:a0a:a0a::1", 503),
            ("2001:a0a:a0a:a0a::a0a", 429),
            ("192.0.2.1", 503),
            ("192.0.2.1", 429),
            ("192.0.2.2", 503),
            ("::ffff:192.0.2.1", 429),
            ("::ffff:192.0.2.3", 503),
            ("::ffff:192.0.2.4", 503),
        ] {
            let request = client.get(format!("{url}/v1/budgets"));
            let response = request.header("x-forwarded-for", address).send().await?;
            ensure!(response.status() == status, "{address}: {}", response.status());
        }
        Ok(())
    });
}

#[test]
fn administrator_routes_are_proxied_to_the_api() {
    let nginx = code::read("deploy/nginx.conf");
    let (_, location) = nginx.split_once("location ~ ^/v1/admin(/|$) {").unwrap();
    assert_eq!(location.trim_start().lines().next(), Some("proxy_pass http://api;"));
}

#[test]
fn requests_are_handled_like_in_the_local_stacks_gateway() {
    let request_rules = |path: &str| {
        let text = code::read(path);
        let (_, rest) = text.split_once("map $request_method $pool").unwrap();
        let lines = rest.lines().filter(|line| !line.trim().starts_with("listen "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(request_rules("deploy/nginx.conf"), request_rules("local/config/nginx.conf.in"));
}
