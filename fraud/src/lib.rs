//! Summarizes the signals of submissions for operators, and selects the people whom signals connect, for an annulment.
//!
//! | module | owns |
//! |---|---|
//! | [`summary`] | new people by hour, the largest networks, identical ballots, identity levels |
//! | [`view`] | a summary as JSON |
//! | [`monitor`] | the metrics of the last hour |
//! | [`selection`] | the people of a network or of a ballot in a time span |
//!
//! Does not decide what is fraud: a person does. Changes nothing.

pub mod monitor;
pub mod selection;
pub mod summary;
pub mod view;
