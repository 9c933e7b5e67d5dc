//! Bounds the open connections of each client address, so that one client cannot take all of them.
//!
//! Trusted proxies are exempt: many people share their addresses. `nginx` limits those by itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::client::{ClientNetwork, TrustedProxies};

/// The connections of each address.
#[derive(Debug)]
pub(super) struct AddressSlots {
    max_per_address: usize,
    trusted_proxies: TrustedProxies,
    /// Addresses without connections have no entry, so there are at most as many as connections.
    open: Mutex<HashMap<ClientNetwork, usize>>,
}

/// The connections of this address are at their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AddressIsFull;

/// One connection of an address; released on drop. Nothing for a trusted proxy.
#[derive(Debug)]
pub(super) struct AddressSlot(Option<(Arc<AddressSlots>, ClientNetwork)>);

impl AddressSlots {
    pub(super) fn new(max_per_address: usize, trusted_proxies: TrustedProxies) -> Arc<Self> {
        Arc::new(Self { max_per_address, trusted_proxies, open: Mutex::default() })
    }

    /// Takes a slot of an address.
    ///
    /// # Errors
    /// If the address has none left.
    pub(super) fn occupy(self: &Arc<Self>, peer: IpAddr) -> Result<AddressSlot, AddressIsFull> {
        if self.trusted_proxies.trusts(peer.to_canonical()) {
            return Ok(AddressSlot(None));
        }
        let network = ClientNetwork::from(peer);
        let mut open = self.open.lock();
        let of_address = open.get(&network).copied().unwrap_or_default();
        if of_address >= self.max_per_address {
            return Err(AddressIsFull);
        }
        open.insert(network, of_address + 1);
        Ok(AddressSlot(Some((Arc::clone(self), network))))
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let Some((slots, network)) = &self.0 else { return };
        let mut open = slots.open.lock();
        match open.get_mut(network) {
            Some(of_address) if *of_address > 1 => *of_address -= 1,
            _ => {
                open.remove(network);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn slots(max_per_address: usize) -> Arc<AddressSlots> {
        let proxies = TrustedProxies::parse("127.0.0.0/8, 10.0.0.0/8").unwrap();
        AddressSlots::new(max_per_address, proxies)
    }

    fn occupy(slots: &Arc<AddressSlots>, peer: &str) -> Result<AddressSlot, AddressIsFull> {
        slots.occupy(peer.parse().unwrap())
    }

    #[test]
    fn an_address_has_a_maximum_and_others_are_unaffected() {
        let slots = slots(2);
        let (first, _second) =
            (occupy(&slots, "192.0.2.1").unwrap(), occupy(&slots, "::ffff:192.0.2.1").unwrap());
        assert_eq!(occupy(&slots, "192.0.2.1").unwrap_err(), AddressIsFull);
        occupy(&slots, "192.0.2.2").unwrap();
        drop(first);
        occupy(&slots, "192.0.2.1").unwrap();
        assert_eq!(slots.open.lock().len(), 1, "addresses without connections are forgotten");
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let slots = slots(1);
        let _held = occupy(&slots, "2001:db8:1:2::1").unwrap();
        occupy(&slots, "2001:db8:1:2:ffff::9").unwrap_err();
        occupy(&slots, "2001:db8:1:3::1").unwrap();
    }

    #[test]
    fn trusted_proxies_have_no_maximum() {
        let slots = slots(1);
        let held: Vec<_> = (0..10).map(|_| occupy(&slots, "10.1.2.3").unwrap()).collect();
        assert!(held.len() == 10 && slots.open.lock().is_empty());
    }
}
