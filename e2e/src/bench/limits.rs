//! The limits of all figures: the one place to change them. Their classes and the rule are in `docs/benchmarks.md`.

/// The limits of a figure that is compared with the fastest program that does the I/O alone, in the same run.
///
/// The class of figures that a slower machine does not change, so both ends fail the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// Below this percentage of the baseline the service is too slow.
    pub min_percent: f64,
    /// Above this percentage the limit is wrong: the baseline is not the fastest program, or the minimum is out of
    /// date.
    pub max_percent: f64,
}

/// Nothing that does more can be faster than its baseline, but for the noise of a shared machine.
pub const MAX_PERCENT: f64 = 110.0;

impl Ratio {
    const fn at_least(min_percent: f64) -> Self {
        Self { min_percent, max_percent: MAX_PERCENT }
    }
}

/// `catch-up`, of the records per second of a plain consumer.
pub const CATCH_UP: Ratio = Ratio::at_least(20.0);
/// `rebuild`, of the records per second of a plain consumer.
pub const REBUILD: Ratio = Ratio::at_least(15.0);
/// `post`, of the requests per second of a handler that only parses.
pub const POST: Ratio = Ratio::at_least(40.0);
/// `batch`, of the records per second of a plain producer.
pub const BATCH: Ratio = Ratio::at_least(50.0);
/// `get`, of the requests per second of a handler that answers the same bytes.
pub const GET: Ratio = Ratio::at_least(60.0);
/// `page`, of the requests per second of nginx with the same bytes in a file.
pub const PAGE: Ratio = Ratio::at_least(40.0);
/// `limits`, of the requests per second without rate limits and sessions.
pub const RATE_LIMITS: Ratio = Ratio::at_least(90.0);

/// `get`: 99th percentile at half load.
pub const GET_P99_MS: f64 = 5.0;
/// `visible`: 99th percentile without other load.
pub const VISIBLE_IDLE_P99_MS: f64 = 100.0;
/// `take-over`: from reading 500,000 people to the first new record.
pub const TAKE_OVER_S: f64 = 3.0;
/// `take-over`: from the kill of the owner to the first new record: a session timeout of 6 s, and 1 s.
pub const AFTER_KILL_S: f64 = 7.0;
/// `hand-over`: the longest time without a commit.
pub const HAND_OVER_S: f64 = 1.0;
/// `rebuild`: 99th percentile from submission to visible meanwhile.
pub const REBUILD_VISIBLE_P99_MS: f64 = 1_000.0;
/// `memory`: of each person.
pub const MEMORY_BYTES: f64 = 96.0;
/// `many-partitions`, `many-budgets`: CPU time of the busiest process without load, of one core.
pub const IDLE_CPU_PERCENT: f64 = 5.0;
/// `many-partitions`, `many-budgets`: 99th percentile from submission to visible under a paced load.
pub const MANY_VISIBLE_P99_MS: f64 = 1_000.0;
/// `streams`: 99th percentile from submission to event, beyond the interval at which a stream sends answers.
pub const STREAMS_DELIVERED_P99_MS: f64 = 500.0;
/// `streams`: 99th percentile of a submission with open streams, as a multiple of that without.
pub const STREAMS_POST_P99_TIMES: f64 = 2.0;
/// `streams`: memory of the api for each stream.
pub const STREAMS_KB: f64 = 32.0;
/// `streams`: streams beyond the limit that were opened, and submissions beside them that were refused.
pub const STREAMS_WRONG_ANSWERS: f64 = 0.0;
/// `closing`: requests of all readers in any second.
pub const CLOSING_REQUESTS_PER_S: f64 = 1_500.0;
/// `closing`: requests in any second that reach an api.
pub const CLOSING_API_REQUESTS_PER_S: f64 = 5.0;
/// `closing`: requests without the aggregate as their answer.
pub const CLOSING_REFUSED: f64 = 0.0;
/// `closing`: from the closing until every reader has the final result. A reader that asks too early, at the end of the
/// ten seconds, asks again up to twenty seconds later.
pub const CLOSING_FINAL_S: f64 = 35.0;
