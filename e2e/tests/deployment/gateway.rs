//! The gateway of docker compose: its upstreams exist, nginx takes it, and it is the local stack's but for addresses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::code;
use crate::compose::Compose;

/// The lines `server HOST:PORT ...;` of the upstreams.
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
    assert_eq!(upstreams(&nginx), [("ingest", listening["ingest"]), ("api", listening["api"])]);
}

/// Debian's nginx is older than the image's and resolves upstreams at its start; only that is taken away for it.
#[test]
fn nginx_takes_the_configuration() {
    let nginx = code::read("deploy/nginx.conf");
    let dir = tempfile::tempdir().unwrap();
    // Started by root, nginx tries its temporary folders as another user.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut here =
        nginx.replace("/tmp/", &format!("{}/", dir.path().display())).replace(" resolve;", ";");
    for (host, port) in upstreams(&nginx) {
        here = here.replace(&format!("server {host}:{port}"), &format!("server 127.0.0.1:{port}"));
    }
    let file = dir.path().join("nginx.conf");
    fs::write(&file, here).unwrap();
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
fn what_administrators_ask_for_is_the_apis() {
    let nginx = code::read("deploy/nginx.conf");
    let (_, location) = nginx.split_once("location ~ ^/v1/admin(/|$) {").unwrap();
    assert_eq!(location.trim_start().lines().next(), Some("proxy_pass http://api;"));
}

#[test]
fn it_treats_requests_as_the_gateway_of_the_local_stack_does() {
    let treatment = |path: &str| {
        let text = code::read(path);
        let (_, rest) = text.split_once("map $request_method $pool").unwrap();
        let lines = rest.lines().filter(|line| !line.trim().starts_with("listen "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(treatment("deploy/nginx.conf"), treatment("local/config/nginx.conf.in"));
}
