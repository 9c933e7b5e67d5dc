//! Single flight: of all who want the same thing at the same time, one fetches it and all get it.
//!
//! A fetch may be for several keys at once, and lands for each of them by itself. Whoever must not get what was
//! fetched before a certain moment says so and is told when it boarded a flight that is too old for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

type Flights<K, V> = Arc<Mutex<HashMap<K, Flight<V>>>>;

#[derive(Debug)]
struct Flight<V> {
    started: Instant,
    landing: watch::Receiver<Option<V>>,
}

/// The flights that are on their way.
#[derive(Debug)]
pub struct SingleFlight<K, V> {
    flights: Flights<K, V>,
}

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// None yet.
    pub fn new() -> Self {
        Self { flights: Arc::default() }
    }

    /// Boards a flight for each key, in order, and starts those that are not on their way: the lead has to fetch
    /// them, and should do so in a task of its own, so that it outlives whoever asked.
    pub fn board(&self, keys: &[K], not_before: Option<Instant>) -> (Lead<K, V>, Vec<Seat<V>>) {
        let mut lead = Lead { flights: Arc::clone(&self.flights), pending: HashMap::new() };
        let mut flights = lock(&self.flights);
        let seats = keys
            .iter()
            .map(|key| {
                let flight = flights.entry(key.clone()).or_insert_with(|| {
                    let (sender, landing) = watch::channel(None);
                    lead.pending.insert(key.clone(), sender);
                    Flight { started: Instant::now(), landing }
                });
                let started_now = lead.pending.contains_key(key);
                Seat {
                    landing: flight.landing.clone(),
                    recent_enough: started_now
                        || not_before.is_none_or(|moment| flight.started > moment),
                }
            })
            .collect();
        (lead, seats)
    }
}

/// A place on a flight.
#[derive(Debug)]
pub struct Seat<V> {
    landing: watch::Receiver<Option<V>>,
    /// Whether the flight started late enough. If not, board again once it has landed.
    pub recent_enough: bool,
}

impl<V: Clone> Seat<V> {
    /// What the flight brought; `None` when it was given up.
    pub async fn landed(mut self) -> Option<V> {
        let value = self.landing.wait_for(Option::is_some).await.ok()?;
        value.clone()
    }
}

/// The duty to fetch. Flights that have not landed when it is dropped are given up.
#[derive(Debug)]
pub struct Lead<K: Eq + Hash, V> {
    flights: Flights<K, V>,
    pending: HashMap<K, watch::Sender<Option<V>>>,
}

impl<K: Eq + Hash, V> Lead<K, V> {
    /// Whether there is nothing to fetch: others are on it.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether the key is this lead's to fetch.
    pub fn leads(&self, key: &K) -> bool {
        self.pending.contains_key(key)
    }

    /// Gives everyone aboard what was fetched for a key.
    pub fn land(&mut self, key: &K, value: V) {
        if let Some(sender) = self.pending.remove(key) {
            // First off the board: who comes from now on starts anew.
            lock(&self.flights).remove(key);
            sender.send_replace(Some(value));
        }
    }
}

impl<K: Eq + Hash, V> Drop for Lead<K, V> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights);
        for key in self.pending.keys() {
            flights.remove(key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_many_one_leads_and_all_get_the_same() {
        let flights = SingleFlight::<&str, u32>::new();
        let (mut lead, mut seats) = flights.board(&["a", "b"], None);
        for _ in 0..100 {
            let (other, more) = flights.board(&["a"], None);
            assert!(other.is_empty());
            seats.extend(more);
        }
        lead.land(&"a", 7);
        lead.land(&"b", 8);
        for (index, seat) in seats.into_iter().enumerate() {
            assert_eq!(seat.landed().await, Some(if index == 1 { 8 } else { 7 }));
        }
        assert!(flights.board(&["a"], None).0.leads(&"a"), "what has landed is not boarded again");
    }

    #[tokio::test]
    async fn a_flight_that_is_given_up_strands_nobody() {
        let flights = SingleFlight::<&str, u32>::new();
        let (lead, mut seats) = flights.board(&["a"], None);
        drop(lead);
        assert_eq!(seats.remove(0).landed().await, None);
        assert!(!flights.board(&["a"], None).0.is_empty());
    }

    #[tokio::test]
    async fn a_flight_from_before_the_wanted_moment_says_so() {
        let flights = SingleFlight::<&str, u32>::new();
        let (_lead, seats) = flights.board(&["a"], None);
        assert!(seats[0].recent_enough);
        let later = Instant::now() + std::time::Duration::from_secs(1);
        let (_, seats) = flights.board(&["a"], Some(later));
        assert!(!seats[0].recent_enough);
    }
}
