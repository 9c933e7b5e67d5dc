//! Single flight: of all callers that want the same value at the same time, one fetches it and all get it.
//!
//! One fetch may cover several keys and completes each of them separately. A caller that must not get a value fetched
//! before a certain moment passes that moment, and learns whether the flight it joined is too old.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

type Flights<K, V> = Arc<Mutex<HashMap<K, Flight<V>>>>;

#[derive(Debug)]
struct Flight<V> {
    started: Instant,
    result: watch::Receiver<Option<V>>,
}

/// The running flights, by key.
#[derive(Debug)]
pub struct SingleFlight<K, V> {
    flights: Flights<K, V>,
}

impl<K: Clone + Eq + Hash, V: Clone> SingleFlight<K, V> {
    /// Creates an empty set of flights.
    pub fn new() -> Self {
        Self { flights: Arc::default() }
    }

    /// Joins a flight for each key, in order, and starts flights for keys that have none.
    ///
    /// The returned leader has to fetch the started keys. It should do so in a task of its own, so that the fetch
    /// outlives the caller.
    pub fn join(
        &self,
        keys: &[K],
        not_before: Option<Instant>,
    ) -> (FlightLeader<K, V>, Vec<FlightHandle<V>>) {
        let mut leader =
            FlightLeader { flights: Arc::clone(&self.flights), pending: HashMap::new() };
        let mut flights = self.flights.lock();
        let handles = keys
            .iter()
            .map(|key| {
                let flight = flights.entry(key.clone()).or_insert_with(|| {
                    let (sender, result) = watch::channel(None);
                    leader.pending.insert(key.clone(), sender);
                    Flight { started: Instant::now(), result }
                });
                let started_now = leader.pending.contains_key(key);
                FlightHandle {
                    result: flight.result.clone(),
                    recent_enough: started_now
                        || not_before.is_none_or(|moment| flight.started > moment),
                }
            })
            .collect();
        (leader, handles)
    }
}

/// A caller's handle of a flight.
#[derive(Debug)]
pub struct FlightHandle<V> {
    result: watch::Receiver<Option<V>>,
    /// Whether the flight started late enough. If not, join again once this flight has completed.
    pub recent_enough: bool,
}

impl<V: Clone> FlightHandle<V> {
    /// Waits for the flight's value; `None` when its leader was dropped without one.
    pub async fn result(mut self) -> Option<V> {
        let value = self.result.wait_for(Option::is_some).await.ok()?;
        value.clone()
    }
}

/// The duty to fetch. Flights that are not completed when the leader is dropped are abandoned.
#[derive(Debug)]
pub struct FlightLeader<K: Eq + Hash, V> {
    flights: Flights<K, V>,
    pending: HashMap<K, watch::Sender<Option<V>>>,
}

impl<K: Eq + Hash, V> FlightLeader<K, V> {
    /// Returns whether there is nothing to fetch: other leaders fetch all keys.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns whether this leader has to fetch the key.
    pub fn leads(&self, key: &K) -> bool {
        self.pending.contains_key(key)
    }

    /// Completes the flight of a key: all its handles get the value.
    pub fn complete(&mut self, key: &K, value: V) {
        if let Some(sender) = self.pending.remove(key) {
            // Remove the flight before sending: later callers must start a new one.
            self.flights.lock().remove(key);
            sender.send_replace(Some(value));
        }
    }
}

impl<K: Eq + Hash, V> Drop for FlightLeader<K, V> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        for key in self.pending.keys() {
            flights.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_of_many_callers_leads_and_all_get_its_value() {
        let flights = SingleFlight::<&str, u32>::new();
        let (mut leader, mut handles) = flights.join(&["a", "b"], None);
        for _ in 0..100 {
            let (other, more) = flights.join(&["a"], None);
            assert!(other.is_empty());
            handles.extend(more);
        }
        leader.complete(&"a", 7);
        leader.complete(&"b", 8);
        for (index, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.result().await, Some(if index == 1 { 8 } else { 7 }));
        }
        assert!(flights.join(&["a"], None).0.leads(&"a"), "a completed flight is not joined again");
    }

    #[tokio::test]
    async fn dropping_the_leader_releases_all_handles() {
        let flights = SingleFlight::<&str, u32>::new();
        let (leader, mut handles) = flights.join(&["a"], None);
        drop(leader);
        assert_eq!(handles.remove(0).result().await, None);
        assert!(!flights.join(&["a"], None).0.is_empty());
    }

    #[tokio::test]
    async fn a_flight_older_than_the_wanted_moment_is_not_recent_enough() {
        let flights = SingleFlight::<&str, u32>::new();
        let (_leader, handles) = flights.join(&["a"], None);
        assert!(handles[0].recent_enough);
        let later = Instant::now() + std::time::Duration::from_secs(1);
        let (_, handles) = flights.join(&["a"], Some(later));
        assert!(!handles[0].recent_enough);
    }
}
