//! The client's address of a request. `X-Forwarded-For` counts only from trusted proxies, since any client can send it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::extract::ConnectInfo;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, Request};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Client, ClientNetwork};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Addresses and networks of proxies whose `X-Forwarded-For` is trusted. Default: those on the same machine.
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

    /// Whether an address is one of the proxies'. As a client's address it means that the proxy did not name its
    /// client.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns the client of a request: as [`note_client`](Self::note_client) has noted it, or computed.
    pub fn client(&self, request: &Parts) -> Client {
        let noted = request.extensions.get::<Client>();
        noted.copied().unwrap_or_else(|| self.compute_client(&request.headers, &request.extensions))
    }

    /// Returns the client of a request, and notes it in the request's extensions unless that was done.
    pub fn note_client(&self, request: &mut Parts) -> Client {
        if let Some(noted) = request.extensions.get::<Client>() {
            return *noted;
        }
        let client = self.client(request);
        request.extensions.insert(client);
        client
    }

    /// Computes the client of a request that just arrived, and notes it in the request's extensions.
    pub(crate) fn note_client_of<B>(&self, request: &mut Request<B>) -> Client {
        let client = self.compute_client(request.headers(), request.extensions());
        request.extensions_mut().insert(client);
        client
    }

    /// Returns the client of a request: its address is the last one of the chain that is not a trusted proxy.
    ///
    /// An address that does not parse ends the chain.
    fn compute_client(&self, headers: &HeaderMap, extensions: &Extensions) -> Client {
        let Some(peer) = extensions.get::<ConnectInfo<SocketAddr>>() else {
            return Client {
                address: Ipv4Addr::UNSPECIFIED.into(),
                network: ClientNetwork::UNKNOWN,
            };
        };
        let address = self.client_address(peer.0.ip().to_canonical(), headers);
        let network = if self.trusts(address) {
            ClientNetwork::UNKNOWN
        } else {
            ClientNetwork::from(address)
        };
        Client { address, network }
    }

    fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let lines: Vec<&str> = headers
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
            let Some(address) = forwarded_address(address.trim()) else { break };
            client = address.to_canonical();
        }
        client
    }
}

/// Parses one address of `X-Forwarded-For`. A port is ignored.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|client| client.ip());
    text.parse().ok().or_else(with_port)
}

impl Default for TrustedProxies {
    fn default() -> Self {
        Self(vec![
            IpNet::from(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
            IpNet::from(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
        ])
    }
}

fn single_address(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut request = Request::new(());
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        for line in forwarded {
            request.headers_mut().append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted = TrustedProxies::parse(trusted).unwrap();
        trusted.client(&request.into_parts().0).address().to_string()
    }

    #[test]
    fn only_trusted_proxies_can_forward_an_address() {
        let proxies = "127.0.0.0/8, ::1, 10.0.0.0/8";
        let local = "127.0.0.1:5";
        for (peer, forwarded, expected) in [
            (local, &[][..], "127.0.0.1"),
            (local, &["192.0.2.7"], "192.0.2.7"),
            (local, &["192.0.2.7:40000"], "192.0.2.7"),
            (local, &["[2001:db8::7]:40000"], "2001:db8::7"),
            (local, &["192.0.2.7:port"], "127.0.0.1"),
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
    fn a_proxy_that_does_not_name_its_client_is_no_client_of_its_own() {
        let network = |peer: &str, trusted: &str| {
            let mut request = Request::new(());
            request.extensions_mut().insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
            TrustedProxies::parse(trusted).unwrap().client(&request.into_parts().0).network()
        };
        assert!(!network("127.0.0.1:5", "127.0.0.0/8").is_known());
        assert!(network("127.0.0.1:5", "10.0.0.0/8").is_known());
        assert!(network("192.0.2.1:5", "127.0.0.0/8").is_known());
    }

    #[test]
    fn proxies_are_addresses_or_networks() {
        assert_eq!(TrustedProxies::parse(" 10.0.0.0/8 ,::1").unwrap().0.len(), 2);
        assert_eq!(TrustedProxies::parse("").unwrap().0.len(), 0);
        let default = TrustedProxies::parse("127.0.0.0/8,::1").unwrap();
        assert_eq!(TrustedProxies::default(), default);
        for wrong in ["gateway", "10.0.0.0/33", "10.0.0.1:8000", "10.0.0.1;10.0.0.2"] {
            assert!(TrustedProxies::parse(wrong).is_err(), "{wrong}");
        }
    }
}
