//! The harness of the black-box tests and of the benchmark: the services as child processes on real servers, fault
//! injection, and a naive oracle for the expected totals.
//!
//! The harness shares no code with the services. It relies only on `docs/http.md`, the record's `.proto`, the tables
//! and the Redis keys.
//!
//! | module | owns |
//! |---|---|
//! | [`scenario`] | running a test: one at a time, with a timeout, printing the logs of its processes on failure |
//! | [`process`] | child processes, which never outlive this one |
//! | [`service`] | one service process, which keeps its address over restarts |
//! | [`stack`], [`embedded`] | the services on real servers; all services in one process |
//! | [`redis_server`] | a dedicated Redis |
//! | [`own_servers`] | dedicated servers that a test may stop and kill |
//! | [`nginx`], [`gateway`] | a running nginx; nginx in front of a stack, as in `local/` |
//! | [`system`], [`response`] | HTTP requests and responses |
//! | [`raw_http`], [`event_stream`], [`open_files`] | clients on plain sockets, many at once; the limit of open files |
//! | [`record`], [`kafka`] | the record format; a plain client of the log |
//! | [`stores`] | plain clients of the tables and Redis keys |
//! | [`oracle`] | the expected totals, from the log or from acknowledged submissions |
//! | [`audit`] | comparing everything shown and stored with the log |
//! | [`load`], [`watch`] | a submission load; readers that detect wrong and stale responses |
//! | [`patient`] | a client and a reader that retry each failed request once |
//! | [`mod@chaos`] | seeded faults over a seeded load, with a verdict |
//! | [`roll`] | rolling a loaded stack between two releases, forward and back |
//! | [`documents`] | the commands that the documents show |
//! | [`ownership_gaps`] | how long partitions have no active owner |
//! | [`mod@bench`] | the benchmark |

pub mod audit;
pub mod bench;
pub mod chaos;
pub mod documents;
pub mod embedded;
pub mod event_stream;
pub mod gateway;
pub mod http_client;
pub mod kafka;
pub mod load;
pub mod nginx;
pub mod open_files;
pub mod operator;
pub mod oracle;
pub mod own_servers;
pub mod ownership_gaps;
pub mod patient;
pub mod port;
pub mod process;
pub mod raw_http;
pub mod record;
pub mod redis_server;
pub mod response;
pub mod roll;
pub mod scenario;
pub mod service;
pub mod stack;
pub mod stores;
pub mod system;
pub mod wait;
pub mod watch;
