//! Detects clients on the same machine, who are administrators where no credentials are configured.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use http::HeaderValue;
use http::header::{FORWARDED, HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;

use super::client_address::X_FORWARDED_FOR;

/// Whether the client is on this machine. A client behind a proxy, or a web page of another site, is not.
pub(crate) fn is_local(request: &Parts) -> bool {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
    let headers = &request.headers;
    peer.is_some_and(|peer| is_loopback(peer.0.ip()))
        && !headers.contains_key(FORWARDED)
        && headers.get_all(X_FORWARDED_FOR).iter().all(is_forwarded_from_loopback)
        // A page of another site in a local browser can send requests too; these headers then name that site.
        && headers.get(HOST).is_none_or(|host| names_this_machine(host.as_bytes()))
        && headers.get(ORIGIN).is_none_or(|origin| {
            let origin = origin.as_bytes();
            let authority = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
            authority.is_some_and(names_this_machine)
        })
}

fn is_forwarded_from_loopback(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|clients| {
        clients.split(',').all(|client| client.trim().parse().is_ok_and(is_loopback))
    })
}

fn names_this_machine(authority: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(authority) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
