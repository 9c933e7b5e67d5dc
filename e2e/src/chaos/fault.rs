//! What can be done to services, servers and the network between them, and what can be done at once.

use std::time::Duration;

use super::proxy::Trouble;
use crate::own_servers::Server;

/// After so much silence a processor's partitions are given to others.
pub const SESSION: Duration = Duration::from_secs(2);
/// How long a request to the store may take.
pub const STORE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A stall that nobody may take for the end: with what it takes to stop and go on, less than [`SESSION`].
pub const STALL: Duration = Duration::from_millis(800);

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

/// One service: which of its kind, from 0.
pub type Victim = (Kind, usize);

/// What a link connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// From clients to the first of a kind.
    Client(Kind),
    /// From the first of each kind to Kafka.
    Kafka,
    /// From the first of a kind to Cassandra.
    Cassandra(Kind),
    /// From the first of a kind to Redis.
    Redis(Kind),
}

/// How Redis fails while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisFault {
    /// It forgets everything.
    Flush,
    /// It takes no writes.
    ReadOnly,
    /// It has no memory left.
    OutOfMemory,
}

/// One thing that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A service is killed and started again.
    Kill(Victim),
    /// A service is asked to end, and started again.
    Terminate(Victim),
    /// All services are, one after the other.
    Roll,
    /// A processor stands still until another has everything, and goes on.
    Pause(usize),
    /// A service stands still for less time than anybody notices.
    Stall(Victim),
    /// So many times, every two seconds, a processor joins or leaves.
    Storm(u32),
    /// A server is killed and started again.
    KillServer(Server),
    /// A server is asked to end, and started again.
    TerminateServer(Server),
    /// Redis is killed and started again, empty.
    KillRedis,
    /// Redis is asked to end, and started again, empty.
    TerminateRedis,
    /// Trouble on a link.
    Net(Trouble, Link),
    /// Something about a Redis that runs.
    Redis(RedisFault),
    /// The clock of the second of a kind goes forward, or backward, by so many seconds, and back.
    Clock(Kind, i64),
}

impl Fault {
    /// Its name in the verdict.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Terminate(_) => "term",
            Self::Roll => "roll",
            Self::Pause(_) => "pause",
            Self::Stall(_) => "stall",
            Self::Storm(_) => "storm",
            Self::KillServer(Server::Kafka) => "kill_kafka",
            Self::KillServer(Server::Cassandra) => "kill_cassandra",
            Self::KillRedis => "kill_redis",
            Self::TerminateServer(Server::Kafka) => "term_kafka",
            Self::TerminateServer(Server::Cassandra) => "term_cassandra",
            Self::TerminateRedis => "term_redis",
            Self::Net(Trouble::Cut, Link::Client(_)) => "client_cut",
            Self::Net(Trouble::Reset, Link::Client(_)) => "client_reset",
            Self::Net(Trouble::Swallow, Link::Client(_)) => "client_half_open",
            Self::Net(Trouble::SwallowReplies, Link::Client(_)) => "client_lost_replies",
            Self::Net(Trouble::Late(_), Link::Client(_)) => "client_late",
            Self::Net(Trouble::Slow, Link::Client(_)) => "client_slow",
            Self::Net(Trouble::Cut, _) => "cut",
            Self::Net(Trouble::Reset, _) => "reset",
            Self::Net(Trouble::Swallow, _) => "half_open",
            Self::Net(Trouble::SwallowReplies, _) => "lost_replies",
            Self::Net(Trouble::Late(_), _) => "late",
            Self::Net(Trouble::Slow, _) => "slow",
            Self::Redis(RedisFault::Flush) => "redis_flush",
            Self::Redis(RedisFault::ReadOnly) => "redis_read_only",
            Self::Redis(RedisFault::OutOfMemory) => "redis_full",
            Self::Clock(..) => "clock",
        }
    }

    /// How long it is left alone once it is there; what takes its own time does not count.
    pub fn hold(self) -> Duration {
        match self {
            Self::Stall(_) => STALL,
            Self::Roll | Self::Storm(_) | Self::Pause(_) => Duration::ZERO,
            Self::KillServer(_) | Self::TerminateServer(_) => Duration::ZERO,
            // Long enough for a commit to be given up and repeated.
            Self::Net(_, Link::Cassandra(_)) => STORE_TIMEOUT * 2 + Duration::from_millis(500),
            _ => Duration::from_millis(1_500),
        }
    }

    /// Whether two may be there at once: each must still be able to come about, and to be told from the other.
    pub fn mixes_with(self, other: Self) -> bool {
        let alone = |fault| matches!(fault, Self::Roll | Self::Storm(_));
        // A processor can only be replaced where everything else about processors is well.
        let paused = |fault| matches!(fault, Self::Pause(_));
        let about_processors = |fault| {
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
        // Whatever takes time would make a stall longer.
        let stalled = |fault| matches!(fault, Self::Stall(_));
        let at_once = |fault| matches!(fault, Self::Redis(_) | Self::KillRedis | Self::Kill(_));
        let both = |one: Self, other: Self| {
            !alone(one)
                && !(paused(one) && (about_processors(other) || stalled(other)))
                && (!stalled(one) || at_once(other))
                && !one.keeps_from(other)
        };
        both(self, other)
            && both(other, self)
            && self.subject().is_none_or(|subject| Some(subject) != other.subject())
            && !matches!((self, other), (Self::Net(_, one), Self::Net(_, two)) if one == two)
    }

    /// Nothing passes a link to a server that is away, or of a service that is; and what is away cannot be hurt.
    fn keeps_from(self, other: Self) -> bool {
        match (self, other) {
            (Self::KillServer(server) | Self::TerminateServer(server), Self::Net(_, link)) => {
                match server {
                    Server::Kafka => link == Link::Kafka,
                    Server::Cassandra => matches!(link, Link::Cassandra(_)),
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
            // An end in good order needs what is behind the service.
            (
                Self::Terminate(_),
                Self::KillServer(_) | Self::TerminateServer(_) | Self::Net(_, Link::Kafka),
            ) => true,
            _ => false,
        }
    }

    /// The service that it is about, if it is about one.
    fn subject(self) -> Option<Victim> {
        match self {
            Self::Kill(victim) | Self::Terminate(victim) | Self::Stall(victim) => Some(victim),
            Self::Pause(processor) => Some((Kind::Processor, processor)),
            Self::Clock(kind, _) => Some((kind, 1)),
            _ => None,
        }
    }
}
