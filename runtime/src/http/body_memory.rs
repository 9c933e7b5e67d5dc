//! The memory of the bodies of all unanswered requests. Under overload, large bodies are refused before small ones: a
//! batch before a person's own submission. One client may hold a part of it, so that it starves nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::client::ClientNetwork;

/// A body up to this size is small, its overhead included.
const SMALL_BODY_BYTES: usize = 64 * 1024;

/// The part of the memory that large bodies leave to small ones: a fourth.
const RESERVED_DIVISOR: usize = 4;

/// The part of the memory that one client may hold: an eighth, or one body of the maximum size. Clients without an
/// address have no such bound.
const CLIENT_DIVISOR: usize = 8;

/// The memory of all bodies.
#[derive(Debug)]
pub(super) struct BodyMemory {
    free_bytes: AtomicUsize,
    /// What large bodies leave to small ones.
    small_body_bytes: usize,
    max_client_bytes: usize,
    /// Clients that hold nothing have no entry, so there are at most as many as requests.
    held_bytes: Mutex<HashMap<ClientNetwork, usize>>,
}

/// Why memory cannot be reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryFull {
    /// All clients together hold all of the memory.
    Shared,
    /// This client holds the most that one client may.
    OfClient,
}

impl BodyMemory {
    /// Creates the memory. A client may always hold one body of the maximum size: it would be refused for ever
    /// otherwise.
    pub(super) fn new(max_bytes: usize, largest_body_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            free_bytes: AtomicUsize::new(max_bytes),
            small_body_bytes: max_bytes / RESERVED_DIVISOR,
            max_client_bytes: (max_bytes / CLIENT_DIVISOR).max(largest_body_bytes),
            held_bytes: Mutex::default(),
        })
    }

    fn reserve_of_client(&self, client: ClientNetwork, bytes: usize) -> Result<(), MemoryFull> {
        if !client.is_known() {
            return Ok(());
        }
        let mut clients = self.held_bytes.lock();
        let held = clients.get(&client).copied().unwrap_or_default().saturating_add(bytes);
        if held > self.max_client_bytes {
            return Err(MemoryFull::OfClient);
        }
        clients.insert(client, held);
        Ok(())
    }

    fn reserve_shared(&self, bytes: usize, is_large: bool) -> Result<(), MemoryFull> {
        let left = if is_large { self.small_body_bytes } else { 0 };
        let remaining = |free: usize| free.checked_sub(bytes).filter(|free| *free >= left);
        self.free_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, remaining)
            .map(|_| ())
            .map_err(|_| MemoryFull::Shared)
    }

    fn release_of_client(&self, client: ClientNetwork, bytes: usize) {
        if !client.is_known() || bytes == 0 {
            return;
        }
        let mut clients = self.held_bytes.lock();
        match clients.get_mut(&client) {
            Some(held) if *held > bytes => *held -= bytes,
            _ => {
                clients.remove(&client);
            }
        }
    }
}

/// What one request holds of the memory. Released on drop.
#[derive(Debug)]
pub(super) struct Reservation {
    bytes: AtomicUsize,
    client: ClientNetwork,
    memory: Arc<BodyMemory>,
}

impl Reservation {
    /// Creates a reservation of nothing.
    pub(super) fn empty(memory: &Arc<BodyMemory>, client: ClientNetwork) -> Self {
        Self { bytes: AtomicUsize::new(0), client, memory: Arc::clone(memory) }
    }

    /// Reserves more bytes.
    ///
    /// # Errors
    /// If the client holds its part, or all clients together hold everything that is for a body of this size.
    pub(super) fn grow(&self, bytes: usize) -> Result<(), MemoryFull> {
        let is_large = self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > SMALL_BODY_BYTES;
        self.memory.reserve_of_client(self.client, bytes)?;
        self.memory
            .reserve_shared(bytes, is_large)
            .inspect_err(|_| self.memory.release_of_client(self.client, bytes))?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        self.memory.free_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.memory.release_of_client(self.client, bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(address: &str) -> ClientNetwork {
        ClientNetwork::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_client_holds_an_eighth_and_gives_back_what_it_drops() {
        let memory = BodyMemory::new(8_000, 500);
        let reservation = |address| Reservation::empty(&memory, client(address));
        let (first, second) = (reservation("192.0.2.1"), reservation("192.0.2.1"));
        first.grow(600).unwrap();
        second.grow(400).unwrap();
        assert_eq!(second.grow(1), Err(MemoryFull::OfClient));
        reservation("192.0.2.2").grow(1_000).unwrap();
        drop(first);
        second.grow(600).unwrap();
        drop(second);
        assert!(memory.held_bytes.lock().is_empty(), "clients without bodies are forgotten");
        assert_eq!(memory.free_bytes.load(Ordering::Relaxed), 8_000);
    }

    #[test]
    fn a_client_may_hold_one_body_of_the_maximum_size_however_small_its_part() {
        let memory = BodyMemory::new(8_000, 3_000);
        let own = Reservation::empty(&memory, client("192.0.2.1"));
        own.grow(3_000).unwrap();
        assert_eq!(own.grow(1), Err(MemoryFull::OfClient));
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_unknown_clients_have_no_part() {
        let memory = BodyMemory::new(8_000, 500);
        let held = Reservation::empty(&memory, client("2001:db8:1:2::1"));
        held.grow(1_000).unwrap();
        let same = Reservation::empty(&memory, client("2001:db8:1:2:ffff::9"));
        assert_eq!(same.grow(1), Err(MemoryFull::OfClient));
        Reservation::empty(&memory, client("2001:db8:1:3::1")).grow(1_000).unwrap();
        let unknown = Reservation::empty(&memory, ClientNetwork::UNKNOWN);
        unknown.grow(7_000).unwrap();
        assert_eq!(unknown.grow(1), Err(MemoryFull::Shared));
    }

    #[test]
    fn what_is_refused_for_all_is_not_counted_for_its_client() {
        let memory = BodyMemory::new(8_000, 500);
        let others = Reservation::empty(&memory, ClientNetwork::UNKNOWN);
        others.grow(7_500).unwrap();
        let own = Reservation::empty(&memory, client("192.0.2.1"));
        assert_eq!(own.grow(600), Err(MemoryFull::Shared));
        drop(others);
        own.grow(1_000).unwrap();
    }
}
