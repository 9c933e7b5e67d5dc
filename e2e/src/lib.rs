//! The harness of the black-box tests and of the benchmark: our services as child processes on real servers, what is
//! needed to hurt them, and a naive oracle that says what is right.
//!
//! It shares no code with the services. What it knows of them is what `docs/http.md`, the record's `.proto`, the tables and
//! the Redis keys promise.
//!
//! | module | owns |
//! |---|---|
//! | [`scenario`] | how a test runs: alone, bounded, with the logs of its processes quoted when it fails |
//! | [`process`] | child processes: started, signalled, ended with this one |
//! | [`service`] | one of our processes, on an address that it keeps over restarts |
//! | [`stack`], [`embedded`] | the services on real servers; everything in one process |
//! | [`redis_server`] | a Redis of one's own |
//! | [`own_servers`] | servers of one's own, to be stopped and killed |
//! | [`gateway`] | one address in front of a stack, as in `local/` |
//! | [`system`], [`answer`] | HTTP: requests, and what the answers say |
//! | [`record`], [`kafka`] | the record's format; the log as a plain client sees it |
//! | [`stores`] | the rows and keys as plain clients see them |
//! | [`oracle`] | what the totals must be, from the log or from what was acknowledged |
//! | [`audit`] | whether all that is shown and stored is what the log says |
//! | [`load`], [`watch`] | people who submit; readers who check that nothing goes wrong or backwards |
//! | [`mod@chaos`] | a seeded storm of faults over a seeded load, and what it came to |
//! | [`unowned`] | for how long nobody moves a partition forward |
//! | [`mod@bench`] | the figures of the benchmark |

pub mod answer;
pub mod audit;
pub mod bench;
pub mod chaos;
pub mod embedded;
pub mod gateway;
pub mod kafka;
pub mod load;
pub mod operator;
pub mod oracle;
pub mod own_servers;
pub mod port;
pub mod process;
pub mod record;
pub mod redis_server;
pub mod scenario;
pub mod service;
pub mod stack;
pub mod stores;
pub mod system;
pub mod unowned;
pub mod wait;
pub mod watch;
