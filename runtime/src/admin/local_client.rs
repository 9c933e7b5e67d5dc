//! Detects clients on the same machine, who are administrators where no credentials are configured.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use http::header::{FORWARDED, HOST, ORIGIN, VIA};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, Version};

use crate::client::PeerAccount;

/// Headers that only a proxy adds, besides those of `PROXY_PREFIXES`.
const PROXY_HEADERS: [&str; 9] = [
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-proxyuser-ip",
    "true-client-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "cdn-loop",
    "proxy-client-ip",
];

/// Beginnings of headers that only a proxy adds.
const PROXY_PREFIXES: [&str; 8] = [
    "x-forwarded-",
    "x-original-",
    "x-envoy-",
    "x-amz",
    "x-azure-",
    "x-appengine-",
    "cf-",
    "wl-proxy-",
];

/// Whether the client is on this machine, under the account of this process. A client behind a proxy, or a web page of
/// another site, is not.
///
/// A proxy on this machine under the same account that adds no header cannot be recognized.
pub(crate) fn is_local(request: &Parts) -> bool {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
    let headers = &request.headers;
    peer.is_some_and(|peer| is_loopback(peer.0.ip()))
        // Clients send HTTP/1.1; nginx before 1.29.7 sends HTTP/1.0 by default.
        && request.version > Version::HTTP_10
        && !headers.keys().any(is_of_proxy)
        // A page of another site in a local browser can send requests too; these headers then name that site.
        && headers.get(HOST).is_some_and(|host| names_this_machine(host.as_bytes()))
        // A target with an authority, as proxies get it, overrides `Host`.
        && request.uri.authority().is_none_or(|target| names_this_machine(target.as_str().as_bytes()))
        && headers.get(ORIGIN).is_none_or(|origin| {
            let origin = origin.as_bytes();
            let authority = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
            authority.is_some_and(names_this_machine)
        })
        // A request without a connection is this process's own. Last, since the kernel is asked.
        && request.extensions.get().is_none_or(PeerAccount::is_own)
}

fn is_of_proxy(name: &HeaderName) -> bool {
    [FORWARDED, VIA].contains(name)
        || PROXY_HEADERS.contains(&name.as_str())
        || PROXY_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

fn names_this_machine(authority: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(authority) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
