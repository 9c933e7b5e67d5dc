//! Everything that crosses a process boundary: the Kafka record, CQL tables, Redis keys and Lua script, and the domain
//! types they carry. Only values: no I/O, no clock, no configuration.
//!
//! | modules | own |
//! |---|---|
//! | `budget`, `category`, `presentation`, `defaults`, `publish_step`, `stored_budget`, `text` | budget definitions, also those of newer releases |
//! | `allocation`, `submission`, `submission_id`, `record`, `receipt` | a submission, and its record in the log |
//! | `person`, `person_salt`, `budget_person_hasher` | pseudonymous persons |
//! | `log`, `partition`, `position`, `closing` | logs, their partitions, and the markers in them |
//! | `totals`, `statistics`, `row`, `people_digest`, `history` | what the fold derives |
//! | `generation`, `registry`, `term`, `version`, `report`, `owner_name` | which derivation is shown, and who makes it |
//! | `annulment` and its four neighbours, `signal` | fraud: what is noticed, and what is done |
//! | `one_time_code`, `revoked_codes`, `serial_set` | codes |
//! | `job`, `export` | background tasks and their files |
//! | `cql`, `redis`, `proto` | tables, keys with their scripts, and messages |
//! | `message_pack`, `fnv`, `rfc3339`, `stored` | formats |

mod allocation;
mod annulment;
mod annulment_effect;
mod annulment_lock;
mod annulment_register;
mod annulment_request;
mod budget;
mod budget_person_hasher;
mod category;
mod closing;
pub mod cql;
mod defaults;
pub mod export;
mod fnv;
mod generation;
mod history;
pub mod job;
mod log;
mod message_pack;
mod one_time_code;
mod owner_name;
mod partition;
mod people_digest;
mod person;
mod person_salt;
mod position;
mod presentation;
mod publish_step;
mod receipt;
mod record;
pub mod redis;
mod registry;
mod report;
mod revoked_codes;
mod rfc3339;
mod row;
mod serial_set;
mod signal;
mod statistics;
mod stored;
mod stored_budget;
mod submission;
mod submission_id;
mod term;
mod text;
mod totals;
mod version;

/// The Protobuf messages as generated from `proto/`.
#[allow(missing_docs)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/allocator.v1.rs"));
}

pub use allocation::{Allocation, AllocationFault, BASIS_POINTS_PER_PERSON};
pub use annulment::{AnnulmentAction, AnnulmentId};
pub use annulment_effect::{AnnulmentEffect, ResultsSummary};
pub use annulment_lock::AnnulmentLock;
pub use annulment_register::{
    AnnulmentChange, AnnulmentEntry, AnnulmentRegister, AnnulmentState, MAX_LISTED_ANNULMENTS,
    RegisterFull, Restoration, SelectionSummary, StoredAnnulments,
};
pub use annulment_request::{
    AnnulmentPart, AnnulmentReason, AnnulmentReasonFault, AnnulmentRequest, AnnulmentSelection,
    MAX_NAMED_PEOPLE, PersonKeys, PersonKeysFault, SignalSpan, SignalSpanFault,
};
pub use budget::{
    Budget, BudgetFault, IdentityRule, MAX_DEFINITION_BYTES, MAX_MAX_PEOPLE, Openness,
    ResultsVisibility,
};
pub use budget_person_hasher::{BudgetPersonHasher, PersonsForgotten};
pub use category::{Category, MAX_CATEGORIES, MIN_CATEGORIES};
pub use closing::{Closing, ClosingFence, ClosingState, Marker, MarkerKind};
pub use defaults::{DEFAULT_BUDGET, default_budgets};
pub use generation::Generation;
pub use history::{
    HistoryInstant, HistoryMergeFault, HistoryPoint, HistoryPointFault, HistoryStep,
    HistoryStepFault, HistoryTotals, InstantTotals, PartitionHistory, combine_histories,
    completed_points,
};
pub use log::{LogNumber, LogRef};
pub use one_time_code::{
    CODE_LIFETIME, CodeHolder, KeyedHash, MAIL_LIMITS, MAX_CODE_TRIES, MAX_CODE_TRIES_OF_CLIENT,
    MailLimit,
};
pub use owner_name::{fold_version_of_owner, owner_name};
pub use partition::{PartitionCount, PartitionCountFault, PartitionId, partition_for};
pub use people_digest::PeopleDigest;
pub use person::{
    PERSON_MAX_BYTES, PersonFault, PersonId, PersonKey, PersonSecret, SecretFingerprint,
};
pub use person_salt::{PersonSalt, PersonSaltState};
pub use position::{Offset, Position};
pub use presentation::{
    CategoryOrder, MAX_TRANSLATIONS, NAME_MAX_CHARS, Presentation, Reference, Share, ShareFault,
    TranslatedCategory, TranslatedReference, Translation, time_zone,
};
pub use publish_step::PublishStep;
pub use receipt::{Receipt, ReceiptFault, ReceiptProof, ReceiptSigner, RecordAddress};
pub use record::{
    AnnulmentStamp, RECORD_VERSION, RecordDecoder, RecordEncoder, RecordFault, RecordKind,
    RecordStamp, RecordView, encode_record, record_fingerprint,
};
pub use registry::{
    ANNULMENT_FOLD_VERSION, Building, FOLD_VERSION, GenerationRecord, GenerationRegistry, Seal,
};
pub use report::{PartitionReport, TotalsComparison};
pub use revoked_codes::{CodeValidity, MAX_REVOKED_RANGES, RevokedCodes, StoredRevocations};
pub use rfc3339::{Rfc3339Fault, parse_rfc3339};
pub use row::{
    PersonRow, PersonRowDecoder, PersonRowFault, RECENT_SUBMISSIONS, bucket_of, buckets,
};
pub use serial_set::{SerialSet, SerialSetFault};
pub use signal::{
    AgentDigest, BallotDigest, IdentityLevel, NetworkDigest, SIGNAL_MAX_BYTES, SIGNAL_RETENTION_MS,
    Signal, SignalAction, SignalDayKey, SignalFault, SignalHasher, SignalOrigin,
};
pub use statistics::{average_ten_thousandths, median_tenths};
pub use stored_budget::StoredBudget;
pub use submission::{Action, Submission};
pub use submission_id::{SubmissionFingerprint, SubmissionId};
pub use term::Term;
pub use text::{BudgetId, CategoryId, SLUG_MAX_BYTES, SlugFault};
pub use totals::{
    BudgetTotals, CategoryTotals, CombinedTotals, DISTRIBUTION_BINS, MergeFault, PartitionTotals,
    PendingStep,
};
pub use version::{AggregateVersion, NotAVersion};
