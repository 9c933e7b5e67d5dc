//! The routed network of a client's address, by which fraud is noticed.

use std::net::IpAddr;

use super::Client;

/// The /24 network of an IPv4 address, or the /48 network of an IPv6 address.
///
/// These are the smallest networks that are routed on the internet: a single customer rarely has more than one of them,
/// and none of them points to one household. Personal data still: it is for a keyed digest alone, and has no `Display`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RoutedPrefix {
    /// The IP version, then the first bytes of the address, then zeros.
    bytes: [u8; 7],
}

impl RoutedPrefix {
    /// Returns the network of an address.
    pub fn of(address: IpAddr) -> Self {
        let bytes = match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                [4, a, b, c, 0, 0, 0]
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                [6, a, b, c, d, e, f]
            }
        };
        Self { bytes }
    }

    /// Returns the bytes, different for different networks.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for RoutedPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoutedPrefix(hidden)")
    }
}

impl Client {
    /// Returns the routed network; `None` for all clients of a proxy that does not name them.
    pub fn routed_prefix(&self) -> Option<RoutedPrefix> {
        self.network.is_known().then(|| RoutedPrefix::of(self.address))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_routed_network_have_one_prefix() {
        let prefix = |text: &str| RoutedPrefix::of(text.parse().unwrap());
        assert_eq!(prefix("192.0.2.1"), prefix("192.0.2.254"));
        assert_eq!(prefix("192.0.2.1"), prefix("::ffff:192.0.2.9"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.3.1"));
        assert_eq!(prefix("2001:db8:1:2::1"), prefix("2001:db8:1:ffff::1"));
        assert_ne!(prefix("2001:db8:1::1"), prefix("2001:db8:2::1"));
        assert_ne!(prefix("4.0.0.1").as_bytes(), prefix("400::1").as_bytes());
    }
}
