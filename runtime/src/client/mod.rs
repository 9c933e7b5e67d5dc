//! Who sends a request, as far as the network tells: the client's address behind trusted proxies, and its network.
//!
//! Every limit per client, and every log of a refused attempt, uses this one type. Which person or administrator a
//! client is, the credentials of the request decide elsewhere.

mod network;
mod peer_account;
mod prefix;
mod trusted_proxies;

use std::net::IpAddr;

pub use network::ClientNetwork;
pub(crate) use peer_account::PeerAccount;
pub use prefix::RoutedPrefix;
pub use trusted_proxies::TrustedProxies;

/// The client of a request. [`TrustedProxies`] computes it from the head alone, before the body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    address: IpAddr,
    network: ClientNetwork,
}

impl Client {
    /// Returns the address: the last one of the chain that is not a trusted proxy.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns the network that limits per client apply to.
    pub fn network(&self) -> ClientNetwork {
        self.network
    }
}
