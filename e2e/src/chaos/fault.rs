//! The faults of services, servers and the network, and which of them may overlap.

use std::time::Duration;

use super::proxy::NetworkFault;
use crate::own_servers::Server;

/// Kafka session timeout of the processors.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
/// Request timeout of the store.
pub const STORE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Duration of a stall. Including the time to suspend and resume, it must be less than [`SESSION_TIMEOUT`].
pub const STALL_DURATION: Duration = Duration::from_millis(800);

/// A kind of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// HTTP to log.
    Ingest,
    /// Log to totals.
    Processor,
    /// Totals to HTTP.
    Api,
}

/// A service: its kind and its index, from 0.
pub type Target = (Kind, usize);

/// A network connection that a proxy can disturb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// From clients to the first service of a kind.
    Client(Kind),
    /// From the first service of each kind to Kafka.
    Kafka,
    /// From the first service of a kind to Cassandra.
    Cassandra(Kind),
    /// From the first service of a kind to Redis.
    Redis(Kind),
}

/// A fault of a running Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisFault {
    /// All keys are deleted.
    Flush,
    /// Writes are rejected.
    ReadOnly,
    /// The memory limit is reached.
    OutOfMemory,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A service is killed and started again.
    Kill(Target),
    /// A service is terminated gracefully and started again.
    Terminate(Target),
    /// All services are terminated gracefully and started again, one after the other.
    Roll,
    /// A processor is suspended until the others own its partitions, and resumed.
    Pause(usize),
    /// A service is suspended for less than the session timeout.
    Stall(Target),
    /// A rebalance storm: every two seconds a processor joins or leaves, this many times.
    Storm(u32),
    /// A server is killed and started again.
    KillServer(Server),
    /// A server is terminated gracefully and started again.
    TerminateServer(Server),
    /// Redis is killed and started again, empty.
    KillRedis,
    /// Redis is terminated gracefully and started again, empty.
    TerminateRedis,
    /// A network fault on a link.
    Net(NetworkFault, Link),
    /// A fault of a running Redis.
    Redis(RedisFault),
    /// The clock of a kind's second service is off by this many seconds for a while.
    Clock(Kind, i64),
}

impl Fault {
    /// The name in the verdict.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Terminate(_) => "term",
            Self::Roll => "roll",
            Self::Pause(_) => "pause",
            Self::Stall(_) => "stall",
            Self::Storm(_) => "storm",
            Self::KillServer(Server::Cassandra) => "kill_cassandra",
            Self::KillServer(_) => "kill_kafka",
            Self::KillRedis => "kill_redis",
            Self::TerminateServer(Server::Cassandra) => "term_cassandra",
            Self::TerminateServer(_) => "term_kafka",
            Self::TerminateRedis => "term_redis",
            Self::Net(NetworkFault::Cut, Link::Client(_)) => "client_cut",
            Self::Net(NetworkFault::Reset, Link::Client(_)) => "client_reset",
            Self::Net(NetworkFault::Swallow, Link::Client(_)) => "client_half_open",
            Self::Net(NetworkFault::SwallowReplies, Link::Client(_)) => "client_lost_replies",
            Self::Net(NetworkFault::Late(_), Link::Client(_)) => "client_late",
            Self::Net(NetworkFault::Slow, Link::Client(_)) => "client_slow",
            Self::Net(NetworkFault::Cut, _) => "cut",
            Self::Net(NetworkFault::Reset, _) => "reset",
            Self::Net(NetworkFault::Swallow, _) => "half_open",
            Self::Net(NetworkFault::SwallowReplies, _) => "lost_replies",
            Self::Net(NetworkFault::Late(_), _) => "late",
            Self::Net(NetworkFault::Slow, _) => "slow",
            Self::Redis(RedisFault::Flush) => "redis_flush",
            Self::Redis(RedisFault::ReadOnly) => "redis_read_only",
            Self::Redis(RedisFault::OutOfMemory) => "redis_full",
            Self::Clock(..) => "clock",
        }
    }

    /// How long the fault stays active, in addition to the time that its injection takes.
    pub fn hold(self) -> Duration {
        match self {
            Self::Stall(_) => STALL_DURATION,
            Self::Roll | Self::Storm(_) | Self::Pause(_) => Duration::ZERO,
            Self::KillServer(_) | Self::TerminateServer(_) => Duration::ZERO,
            // Long enough for a commit to time out and be retried.
            Self::Net(_, Link::Cassandra(_)) => STORE_TIMEOUT * 2 + Duration::from_millis(500),
            _ => Duration::from_millis(1_500),
        }
    }

    /// Whether two faults may be active at the same time. Each must still be able to take effect, detectably.
    pub fn may_overlap(self, other: Self) -> bool {
        let alone = |fault| matches!(fault, Self::Roll | Self::Storm(_));
        // A takeover from a suspended processor needs healthy processors and servers.
        let paused = |fault| matches!(fault, Self::Pause(_));
        let affects_processors = |fault| {
            matches!(
                fault,
                Self::Kill((Kind::Processor, _))
                    | Self::Terminate((Kind::Processor, _))
                    | Self::KillServer(_)
                    | Self::TerminateServer(_)
                    | Self::Net(_, Link::Kafka | Link::Cassandra(_))
                    | Self::Clock(..)
            )
        };
        // A fault that takes time to inject would prolong a stall.
        let stalled = |fault| matches!(fault, Self::Stall(_));
        let immediate = |fault| matches!(fault, Self::Redis(_) | Self::KillRedis | Self::Kill(_));
        let both = |one: Self, other: Self| {
            !alone(one)
                && !(paused(one) && (affects_processors(other) || stalled(other)))
                && (!stalled(one) || immediate(other))
                && !one.prevents(other)
        };
        both(self, other)
            && both(other, self)
            && self.target().is_none_or(|target| Some(target) != other.target())
            && !matches!((self, other), (Self::Net(_, one), Self::Net(_, two)) if one == two)
    }

    /// Whether this fault keeps the other one from taking effect, because its target is down.
    fn prevents(self, other: Self) -> bool {
        match (self, other) {
            (Self::KillServer(server) | Self::TerminateServer(server), Self::Net(_, link)) => {
                match server {
                    Server::Cassandra => matches!(link, Link::Cassandra(_)),
                    _ => link == Link::Kafka,
                }
            }
            (
                Self::KillServer(one) | Self::TerminateServer(one),
                Self::KillServer(two) | Self::TerminateServer(two),
            ) => one == two,
            (
                Self::KillRedis | Self::TerminateRedis | Self::Redis(_),
                Self::KillRedis | Self::TerminateRedis | Self::Redis(_),
            ) => true,
            (Self::KillRedis | Self::TerminateRedis, Self::Net(_, link)) => {
                matches!(link, Link::Redis(_))
            }
            (
                Self::Kill((kind, 0)) | Self::Terminate((kind, 0)) | Self::Stall((kind, 0)),
                Self::Net(_, Link::Client(of) | Link::Redis(of) | Link::Cassandra(of)),
            ) => kind == of,
            // A graceful exit needs the servers behind the service.
            (
                Self::Terminate(_),
                Self::KillServer(_) | Self::TerminateServer(_) | Self::Net(_, Link::Kafka),
            ) => true,
            _ => false,
        }
    }

    /// The service that the fault affects, if it is exactly one.
    fn target(self) -> Option<Target> {
        match self {
            Self::Kill(target) | Self::Terminate(target) | Self::Stall(target) => Some(target),
            Self::Pause(processor) => Some((Kind::Processor, processor)),
            Self::Clock(kind, _) => Some((kind, 1)),
            _ => None,
        }
    }
}
