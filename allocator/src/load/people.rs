//! The people of a load: who may submit next, and what each of them has counted.
//!
//! A person has at most one request in flight, so their last settled request is what counts.

use std::collections::VecDeque;

use fastrand::Rng;

use super::ballots;

/// A person's number.
pub type PersonNumber = u32;

/// What a person sends next. `None`: a withdrawal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextRequest {
    /// Who sends it.
    pub person: PersonNumber,
    /// The shares of each category in basis points.
    pub shares: Option<Vec<u32>>,
}

/// How often people change their mind.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Percent of requests that replace an earlier submission.
    pub resubmit_percent: u8,
    /// Percent of requests that withdraw one.
    pub withdraw_percent: u8,
}

/// All people.
pub struct People {
    rng: Rng,
    habits: Habits,
    categories: usize,
    /// Who has not submitted yet.
    new: std::ops::Range<PersonNumber>,
    /// Who has submitted or withdrawn and has no request in flight.
    idle: VecDeque<PersonNumber>,
    /// What counts of each person; `None` after a withdrawal or before the first submission.
    counted: Vec<Option<Vec<u32>>>,
}

impl People {
    /// Creates people of whom nobody has submitted.
    pub fn new(seed: u64, people: u32, categories: usize, habits: Habits) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            habits,
            categories,
            new: 0..people,
            idle: VecDeque::new(),
            counted: vec![None; people as usize],
        }
    }

    /// Draws the next request; `None` while everybody has one in flight.
    pub fn next_request(&mut self) -> Option<NextRequest> {
        let roll = self.rng.u8(0..100);
        let withdraws = roll < self.habits.withdraw_percent;
        let again = withdraws
            || roll < self.habits.withdraw_percent.saturating_add(self.habits.resubmit_percent);
        let person = match again.then(|| self.idle.pop_front()).flatten() {
            Some(person) => person,
            None => self.new.next().or_else(|| self.idle.pop_front())?,
        };
        let counts = self.counted.get(person as usize).is_some_and(Option::is_some);
        let shares =
            (!(withdraws && counts)).then(|| ballots::draw(&mut self.rng, self.categories));
        Some(NextRequest { person, shares })
    }

    /// Notes that a request was accepted.
    pub fn accepted(&mut self, request: NextRequest) {
        if let Some(counted) = self.counted.get_mut(request.person as usize) {
            *counted = request.shares;
        }
        self.idle.push_back(request.person);
    }

    /// Notes that a request was rejected and changed nothing.
    pub fn rejected(&mut self, person: PersonNumber) {
        self.idle.push_back(person);
    }

    /// The number of people who count, and the sum of their shares for each category.
    pub fn expected(&self) -> (u64, Vec<u64>) {
        let (mut people, mut sums) = (0, vec![0; self.categories]);
        for shares in self.counted.iter().flatten() {
            people += 1;
            for (sum, share) in sums.iter_mut().zip(shares) {
                *sum += u64::from(*share);
            }
        }
        (people, sums)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nobody_has_two_requests_in_flight_and_everyone_counts_once(seed: u64) {
            let habits = Habits { resubmit_percent: 40, withdraw_percent: 20 };
            let mut people = People::new(seed, 10, 3, habits);
            let mut in_flight: Vec<NextRequest> = Vec::new();
            let mut rng = fastrand::Rng::with_seed(seed);
            for _ in 0..300 {
                if rng.bool()
                    && let Some(request) = people.next_request()
                {
                    prop_assert!(in_flight.iter().all(|other| other.person != request.person));
                    in_flight.push(request);
                } else if !in_flight.is_empty() {
                    people.accepted(in_flight.swap_remove(rng.usize(0..in_flight.len())));
                }
            }
            let (counted, sums) = people.expected();
            prop_assert!(counted <= 10);
            prop_assert_eq!(sums.iter().sum::<u64>(), counted * 10_000);
        }
    }
}
