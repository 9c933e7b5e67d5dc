//! The public pages as pure functions: view models in, HTML out. No I/O and no clock.
//!
//! | module | owns |
//! |---|---|
//! | `arithmetic` | sharing and scaling an allocation, in basis points |
//! | `number` | reading and writing numbers as each language does |
//! | `language`, `texts` | the languages and their texts |
//! | `form` | the form's fields, its faults, and the tools that need no script |
//! | `view` | what the pages show of a budget and of its results |
//! | `history` | what the pages show of a budget's history |
//! | `html` | the pages |
//! | `mail` | the mail with a one-time code |
//! | `assets` | style sheet and scripts, embedded under one digest |
//! | `gzip` | compression |
//!
//! `api` serves the pages, `ingest` takes their forms; both use `form`, so that they agree.

pub mod arithmetic;
pub mod assets;
pub mod form;
mod gzip;
pub mod history;
pub mod html;
pub mod language;
pub mod mail;
pub mod number;
pub mod texts;
pub mod view;

pub use gzip::{gzip, gzip_fast};
