//! Every person's current shares in compact memory: one record of fixed width for each person, in chunks that never
//! move, found through a hash table of 4-byte slot numbers. With ten categories a record takes 64 bytes.
//!
//! A person's record in 64-bit words: two of key, the fingerprints of the latest submissions (newest first, 0 for
//! none), then the offset, whether the person is annulled, and the shares, see [`packed`]. Shares that are all zero
//! mean "withdrawn".

use std::ops::Range;

use hashbrown::HashTable;
use schemas::{
    BudgetId, Offset, PersonKey, PersonRow, Position, RECENT_SUBMISSIONS, SubmissionFingerprint,
};

use super::packed::{self, Head};
use super::shares::Shares;

const KEY_WORDS: usize = 2;
const RECENT_WORD: usize = KEY_WORDS;
const PACKED_WORD: usize = RECENT_WORD + RECENT_SUBMISSIONS;
/// Records per chunk. Large enough that the allocator gives each chunk its own pages, small enough that the last chunk
/// wastes little.
const CHUNK_PEOPLE: usize = 4096;
/// Most people of a budget for whom memory is reserved: 80 MB of slot numbers.
const MAX_RESERVED_PEOPLE: u64 = 16 << 20;
/// Number of people whose changed bits share one word.
const WORD_PEOPLE: usize = u64::BITS as usize;

/// The people of one budget in one partition.
#[derive(Debug)]
pub(super) struct PersonStates {
    categories: usize,
    index: HashTable<u32>,
    records: Records,
    /// One bit for each person: changed since their row was last taken.
    changed_bits: Vec<u64>,
    changed: usize,
}

#[derive(Debug)]
struct Records {
    chunks: Vec<Box<[u64]>>,
    stride: usize,
    len: usize,
}

impl Records {
    fn new(categories: usize) -> Self {
        Self { chunks: Vec::new(), stride: PACKED_WORD + packed::words(categories), len: 0 }
    }

    fn get(&self, slot: u32) -> &[u64] {
        let (chunk, start) = self.locate(slot);
        &self.chunks[chunk][start..start + self.stride]
    }

    fn get_mut(&mut self, slot: u32) -> &mut [u64] {
        let (chunk, start) = self.locate(slot);
        &mut self.chunks[chunk][start..start + self.stride]
    }

    fn locate(&self, slot: u32) -> (usize, usize) {
        let slot = slot as usize;
        (slot / CHUNK_PEOPLE, slot % CHUNK_PEOPLE * self.stride)
    }

    fn push(&mut self) -> u32 {
        if self.len == self.chunks.len() * CHUNK_PEOPLE {
            self.chunks.push(vec![0; CHUNK_PEOPLE * self.stride].into_boxed_slice());
        }
        // 2^32 people of one partition would take 300 GB first.
        let slot = self.len as u32;
        self.len += 1;
        slot
    }
}

/// A person's latest state.
#[derive(Debug)]
pub(super) struct PersonState {
    pub person: PersonKey,
    /// Offset of the record that last changed the person.
    pub offset: Offset,
    /// Whether the person is annulled: the shares do not count.
    pub annulled: bool,
    pub shares: Shares,
    /// Fingerprints of the latest submission ids, newest first.
    pub recent: [Option<SubmissionFingerprint>; RECENT_SUBMISSIONS],
}

/// A person's record, with whether it existed before.
pub(super) enum PersonEntry<'a> {
    New(PersonSlot<'a>),
    Existing(PersonSlot<'a>),
}

impl PersonStates {
    /// Creates an empty set of people for a budget of `categories` categories (0: not known yet).
    pub fn new(categories: usize) -> Self {
        Self {
            categories,
            index: HashTable::new(),
            records: Records::new(categories),
            changed_bits: Vec::new(),
            changed: 0,
        }
    }

    /// The budget's number of categories; 0 before its first allocation.
    pub fn categories(&self) -> usize {
        self.categories
    }

    /// The number of people, including those who withdrew.
    pub fn len(&self) -> usize {
        self.records.len
    }

    /// The number of people who changed since their row was last taken.
    pub fn changed(&self) -> usize {
        self.changed
    }

    /// Returns everyone's latest state, including those who withdrew or are annulled.
    pub fn all(&self) -> impl Iterator<Item = PersonState> {
        let slots = 0..self.records.len as u32;
        slots.map(|slot| {
            let words = self.records.get(slot);
            let packed = &words[PACKED_WORD..];
            let Head { offset, annulled } = packed::head(packed);
            let shares = packed::shares(packed, self.categories);
            let recent = recent(words);
            PersonState { person: person(words), offset, annulled, shares, recent }
        })
    }

    /// Returns the people who count, with their shares.
    pub fn counting(&self) -> impl Iterator<Item = (PersonKey, Shares)> {
        self.all()
            .filter(|state| state.shares.counts() && !state.annulled)
            .map(|PersonState { person, shares, .. }| (person, shares))
    }

    /// Reserves memory for finding this many people, so that restoring them does not grow the index again and again.
    pub fn reserve(&mut self, people: u64) {
        let additional = people.min(MAX_RESERVED_PEOPLE) as usize;
        let records = &self.records;
        self.index.reserve(additional, |slot| record_hash(records, *slot));
    }

    /// Widens every record once the first allocation fixes the number of categories.
    ///
    /// Until then every person has only withdrawn.
    pub fn set_categories(&mut self, categories: usize) {
        let narrow = std::mem::replace(&mut self.records, Records::new(categories));
        for slot in 0..narrow.len as u32 {
            let wide = self.records.push();
            self.records.get_mut(wide)[..narrow.stride].copy_from_slice(narrow.get(slot));
        }
        self.categories = categories;
    }

    /// Whether the person has a record, also one that only says that they withdrew.
    pub fn contains(&self, person: &PersonKey) -> bool {
        self.find(key_words(person)).is_some()
    }

    fn find(&self, key: [u64; KEY_WORDS]) -> Option<u32> {
        self.index.find(hash(key), |slot| self.records.get(*slot)[..KEY_WORDS] == key).copied()
    }

    /// Returns the person's record; `None` without one.
    pub fn find_mut(&mut self, person: &PersonKey) -> Option<PersonSlot<'_>> {
        self.find(key_words(person)).map(|slot| self.slot(slot))
    }

    /// Returns the person's record, and creates it if there is none.
    pub fn find_or_insert(&mut self, person: &PersonKey) -> PersonEntry<'_> {
        let key = key_words(person);
        match self.find(key) {
            Some(slot) => PersonEntry::Existing(self.slot(slot)),
            None => {
                let slot = self.records.push();
                self.records.get_mut(slot)[..KEY_WORDS].copy_from_slice(&key);
                let records = &self.records;
                self.index.insert_unique(hash(key), slot, |slot| record_hash(records, *slot));
                if slot.is_multiple_of(u64::BITS) {
                    self.changed_bits.push(0);
                }
                PersonEntry::New(self.slot(slot))
            }
        }
    }

    fn slot(&mut self, slot: u32) -> PersonSlot<'_> {
        PersonSlot {
            words: self.records.get_mut(slot),
            categories: self.categories,
            changed_word: &mut self.changed_bits[(slot / u64::BITS) as usize],
            changed_bit: 1 << (slot % u64::BITS),
            changed: &mut self.changed,
        }
    }

    /// Restores a stored row. Returns `false` when it does not fit the budget.
    ///
    /// A read that failed half way is repeated, so a row may come twice, or a newer one of the same person: the newest
    /// stays.
    pub fn restore(&mut self, row: &PersonRow) -> bool {
        if ![0, self.categories].contains(&row.basis_points.len())
            || row.offset > packed::OFFSET_MAX
        {
            return false;
        }
        let slot = match self.find_or_insert(&row.person) {
            PersonEntry::Existing(slot) if slot.offset() >= row.offset => return true,
            PersonEntry::New(slot) | PersonEntry::Existing(slot) => slot,
        };
        for (word, fingerprint) in slot.words[RECENT_WORD..PACKED_WORD].iter_mut().zip(row.recent) {
            *word = fingerprint.map_or(0, |fingerprint| fingerprint.0);
        }
        let head = Head { offset: row.offset, annulled: row.annulled };
        let shares = row.basis_points.iter().copied();
        packed::pack(&mut slot.words[PACKED_WORD..], head, shares);
        true
    }

    /// Marks the people as changed whose latest record is not below `position`.
    pub fn mark_changed_from(&mut self, position: Position) {
        for slot in 0..self.records.len as u32 {
            if !position.includes(packed::head(&self.records.get(slot)[PACKED_WORD..]).offset) {
                self.slot(slot).mark_changed();
            }
        }
    }

    /// Takes the rows of about `limit` changed people in `slots`. Returns them with the next slot to scan.
    pub fn take_changed(
        &mut self,
        budget: &BudgetId,
        slots: Range<usize>,
        limit: usize,
    ) -> (Vec<PersonRow>, usize) {
        let mut rows = Vec::new();
        let mut word_index = slots.start / WORD_PEOPLE;
        while rows.len() < limit
            && let Some(people @ 1..) = slots.end.checked_sub(word_index * WORD_PEOPLE)
            && let Some(word) = self.changed_bits.get_mut(word_index)
        {
            let mut bits = *word & first_bits(people);
            *word ^= bits;
            self.changed -= bits.count_ones() as usize;
            while bits != 0 {
                let slot = word_index as u32 * u64::BITS + bits.trailing_zeros();
                rows.push(row(budget, self.records.get(slot), self.categories));
                bits &= bits - 1;
            }
            word_index += 1;
        }
        (rows, word_index * WORD_PEOPLE)
    }
}

/// Returns a word with its first `count` bits set, at most all 64.
fn first_bits(count: usize) -> u64 {
    if count < WORD_PEOPLE { (1 << count) - 1 } else { u64::MAX }
}

/// One person's record, mutable.
pub(super) struct PersonSlot<'a> {
    words: &'a mut [u64],
    categories: usize,
    changed_word: &'a mut u64,
    changed_bit: u64,
    changed: &'a mut usize,
}

impl PersonSlot<'_> {
    /// Returns the offset of the record that last changed the person.
    pub fn offset(&self) -> Offset {
        packed::head(&self.words[PACKED_WORD..]).offset
    }

    /// Whether the person is annulled.
    pub fn is_annulled(&self) -> bool {
        packed::head(&self.words[PACKED_WORD..]).annulled
    }

    /// Returns the person's latest shares.
    pub fn shares(&self) -> Shares {
        packed::shares(&self.words[PACKED_WORD..], self.categories)
    }

    pub fn has_recent(&self, submission: SubmissionFingerprint) -> bool {
        self.words[RECENT_WORD..PACKED_WORD].contains(&submission.0)
    }

    /// Returns the submission id that the next one displaces, if there is one.
    pub fn oldest_recent(&self) -> Option<SubmissionFingerprint> {
        let oldest = self.words[PACKED_WORD - 1];
        (oldest != 0).then_some(SubmissionFingerprint(oldest))
    }

    /// Annuls or restores the person, and keeps the shares.
    pub fn set_annulled(&mut self, annulled: bool, offset: Offset) {
        packed::set_head(&mut self.words[PACKED_WORD..], Head { offset, annulled });
        self.mark_changed();
    }

    /// Replaces the person's shares, and returns the old ones. Someone who is annulled stays annulled.
    pub fn replace(
        &mut self,
        new: &Shares,
        offset: Offset,
        submission: SubmissionFingerprint,
    ) -> Shares {
        let old = self.shares();
        let head = Head { offset, annulled: self.is_annulled() };
        packed::pack(&mut self.words[PACKED_WORD..], head, new.iter());
        self.words.copy_within(RECENT_WORD..PACKED_WORD - 1, RECENT_WORD + 1);
        self.words[RECENT_WORD] = submission.0;
        self.mark_changed();
        old
    }

    fn mark_changed(&mut self) {
        if *self.changed_word & self.changed_bit == 0 {
            *self.changed_word |= self.changed_bit;
            *self.changed += 1;
        }
    }
}

fn key_words(person: &PersonKey) -> [u64; KEY_WORDS] {
    let bits = u128::from_le_bytes(*person.as_bytes());
    [bits as u64, (bits >> 64) as u64]
}

/// Person keys are the output of a keyed hash: any 64 bits of one are a hash that no client can choose.
fn hash(key: [u64; KEY_WORDS]) -> u64 {
    key[0]
}

fn record_hash(records: &Records, slot: u32) -> u64 {
    let words = records.get(slot);
    hash([words[0], words[1]])
}

fn person(words: &[u64]) -> PersonKey {
    let key = u128::from(words[0]) | u128::from(words[1]) << 64;
    PersonKey::from_bytes(key.to_le_bytes())
}

fn recent(words: &[u64]) -> [Option<SubmissionFingerprint>; RECENT_SUBMISSIONS] {
    let mut recent = [None; RECENT_SUBMISSIONS];
    for (recent, fingerprint) in recent.iter_mut().zip(&words[RECENT_WORD..PACKED_WORD]) {
        *recent = (*fingerprint != 0).then_some(SubmissionFingerprint(*fingerprint));
    }
    recent
}

fn row(budget: &BudgetId, words: &[u64], categories: usize) -> PersonRow {
    let Head { offset, annulled } = packed::head(&words[PACKED_WORD..]);
    PersonRow {
        person: person(words),
        budget: budget.clone(),
        offset,
        annulled,
        basis_points: packed::shares(&words[PACKED_WORD..], categories).iter().collect(),
        recent: recent(words),
    }
}
