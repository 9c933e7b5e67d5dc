//! The compose gateway: its upstreams exist, nginx accepts it, and it matches the local stack's except for addresses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

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

/// Removes `resolve`: Debian's nginx is older than the image's and resolves upstreams at startup.
#[test]
fn nginx_accepts_the_configuration() {
    let nginx = code::read("deploy/nginx.conf");
    let dir = tempfile::tempdir().unwrap();
    // When started by root, nginx creates its temporary folders as another user.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut local =
        nginx.replace("/tmp/", &format!("{}/", dir.path().display())).replace(" resolve;", ";");
    for (host, port) in upstreams(&nginx) {
        local =
            local.replace(&format!("server {host}:{port}"), &format!("server 127.0.0.1:{port}"));
    }
    let file = dir.path().join("nginx.conf");
    fs::write(&file, local).unwrap();
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new("nginx")
        .env("PATH", path)
        .args(["-t", "-e", "stderr", "-c"])
        .arg(&file)
        .output()
        .expect("nginx is needed: local/install nginx");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
