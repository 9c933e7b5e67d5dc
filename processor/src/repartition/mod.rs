//! Another partition count: a new log, into which everything is copied and in which everything is counted anew, and which
//! then takes the place of the one that answers. Submissions go on meanwhile, but for the seconds of the last step.
//!
//! 1. A generation begins whose log is a topic of its own (`generations::begin_moved`), and the topic is created.
//! 2. Everything is copied into it, partition by partition, so that what one person says keeps its order (`copy`), and is
//!    folded there beside the one that answers (`beside`), until both are a moment behind.
//! 3. The old topic is sealed: its brokers refuse every append from then on, also of an ingest that has slept meanwhile.
//!    What an ingest cannot append it holds for a moment and then refuses; it is not lost, as nobody was told that it was
//!    there. The roster says before that the topic is about to be sealed.
//! 4. The rest is copied and folded. Everything that either has counted is compared: totals, distributions, and how many
//!    records took effect (`compare`).
//! 5. One conditional step lets the new generation answer, and retires the one that answered. From then on there is no way
//!    back, and none is needed: they are equal, and nothing comes to the old topic any more.
//! 6. Everyone who takes submissions is told where they go now.
//!
//! **Why the flip comes before the telling.** Told first, submissions would go where nobody reads yet, and who gave the new
//! generation up would lose them. This way round, who dies between the two leaves a roster by which the processors tell it
//! (`announce`), and until then submissions are refused.
//!
//! **Giving up** goes the way back: the roster says that the new generation never answers, the old topic is opened again, and
//! then the generation is gone. Who was late with the last step finds it refused. Nobody goes on with what another one has
//! copied: nobody can know that the other one is dead, and what it still had on its way would come between. A log is copied
//! by one process or not at all; a new attempt has a new topic.
//!
//! Records that the fold cannot take (they are in the dead letters) are not copied.
//!
//! | file | what it has |
//! |---|---|
//! | `run` | the steps above |
//! | `progress` | what is seen of them, and what they come to |
//! | `error` | why they do not |
//! | `give_up` | the way back |
//! | `copy` | the copy, record by record |
//! | `compare` | what differs |
//! | `announce` | where submissions go, as the roster has it: told to everyone who takes them |
//! | `command` | `processor repartition` |

mod announce;
mod command;
mod compare;
mod copy;
mod error;
mod give_up;
mod progress;
mod run;

pub(crate) use announce::Announcer;
pub use command::{RepartitionArgs, repartition_command};
pub use error::RepartitionError;
pub use give_up::{GivenUp, give_up};
pub use progress::{Done, Look, Repartitioned, Stage};
pub use run::{RepartitionParts, repartition};
