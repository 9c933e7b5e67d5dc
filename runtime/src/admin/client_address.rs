//! The client's address of a request. `X-Forwarded-For` counts only from trusted proxies, since any client can send it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::ConnectInfo;
use http::HeaderName;
use http::request::Parts;
use ipnet::IpNet;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses and networks of proxies whose `X-Forwarded-For` is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Parses comma-separated addresses and networks. An empty text trusts none.
    ///
    /// # Errors
    /// The expected format, if an item is neither an address nor a network.
    pub fn parse(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let networks = items.map(|item| item.parse().or_else(|_| item.parse().map(single_address)));
        networks.collect::<Result<_, _>>().map(Self).map_err(|_: std::net::AddrParseError| {
            "expected addresses and networks separated by commas, such as 127.0.0.1,10.0.0.0/8"
                .to_owned()
        })
    }

    /// Whether an address is one of the proxies'. As a client's address it means that the proxy did not name its client.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns the client's address: the last address of the chain that is not a trusted proxy.
    ///
    /// An address that does not parse ends the chain.
    pub fn client_address(&self, request: &Parts) -> IpAddr {
        let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.0.ip().to_canonical());
        let lines: Vec<&str> = request
            .headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .map(|line| line.to_str().unwrap_or_default())
            .collect();
        let chain = lines.iter().rev().flat_map(|line| line.rsplit(','));
        let mut client = peer;
        for address in chain {
            if !self.trusts(client) {
                break;
            }
            let Ok(address) = address.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
        }
        client
    }
}

fn single_address(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Request;

    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut request = Request::new(());
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        for line in forwarded {
            request.headers_mut().append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted = TrustedProxies::parse(trusted).unwrap();
        trusted.client_address(&request.into_parts().0).to_string()
    }

    #[test]
    fn only_trusted_proxies_can_forward_an_address() {
        let proxies = "127.0.0.0/8, ::1, 10.0.0.0/8";
        let local = "127.0.0.1:5";
        for (peer, forwarded, expected) in [
            (local, &[][..], "127.0.0.1"),
            (local, &["192.0.2.7"], "192.0.2.7"),
            ("[::1]:5", &["2001:db8::7"], "2001:db8::7"),
            ("[::ffff:127.0.0.1]:5", &["::ffff:192.0.2.7"], "192.0.2.7"),
            ("192.0.2.1:5", &["127.0.0.1"], "192.0.2.1"),
            // Addresses forged by the client precede those added by proxies.
            (local, &["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
            (local, &["198.51.100.1", "192.0.2.7, 10.1.2.3"], "192.0.2.7"),
            (local, &["10.1.2.3"], "10.1.2.3"),
            (local, &["198.51.100.1, unknown"], "127.0.0.1"),
            (local, &["198.51.100.1, unknown, 10.1.2.3"], "10.1.2.3"),
            (local, &["é"], "127.0.0.1"),
        ] {
            assert_eq!(client(proxies, peer, forwarded), expected, "{peer} {forwarded:?}");
        }
        assert_eq!(client("", local, &["192.0.2.7"]), "127.0.0.1");
    }

    #[test]
    fn proxies_are_addresses_or_networks() {
        assert_eq!(TrustedProxies::parse(" 10.0.0.0/8 ,::1").unwrap().0.len(), 2);
        assert_eq!(TrustedProxies::parse("").unwrap().0.len(), 0);
        for wrong in ["gateway", "10.0.0.0/33", "10.0.0.1:8000", "10.0.0.1;10.0.0.2"] {
            assert!(TrustedProxies::parse(wrong).is_err(), "{wrong}");
        }
    }
}
