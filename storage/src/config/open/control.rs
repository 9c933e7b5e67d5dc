//! Opens the control topic.

use crate::config::embedded_files::{CONTROL_FILE, LOG_FILE};
use crate::config::{LogKind, StorageConfig, lost_definitions};
use crate::control::kafka::KafkaControlTopic;
use crate::control::sqlite::SqliteControlTopic;
use crate::control::{BudgetDefinitions, ControlTopic};
use crate::log::kafka::topics::ensure_auxiliary_topics;
use crate::open_error::OpenError;

impl StorageConfig {
    /// Opens the control topic. It may not be loaded yet.
    ///
    /// # Errors
    /// If the thread cannot be started, or the embedded file cannot be opened, or is missing or without a definition
    /// where there is a log.
    pub fn open_control_topic(&self) -> Result<ControlTopic, OpenError> {
        match self.log {
            LogKind::Kafka => {
                let opened = KafkaControlTopic::open(&self.kafka);
                let topic =
                    opened.map_err(|error| OpenError::invalid("the control topic", error))?;
                Ok(ControlTopic::new(topic))
            }
            LogKind::Sqlite => {
                let (path, log) =
                    (self.embedded_file(CONTROL_FILE)?, self.sqlite_dir.join(LOG_FILE));
                lost_definitions::require_file(&path, &log)?;
                let opened = SqliteControlTopic::open(&path);
                let topic =
                    opened.map_err(|error| OpenError::invalid("the control topic", error))?;
                lost_definitions::require_definitions(&topic.catalog(), &path, &log)?;
                Ok(ControlTopic::new(topic))
            }
        }
    }

    /// Creates the control topic if it does not exist. A control topic that does not exist never becomes loaded.
    ///
    /// # Errors
    /// If Kafka is unreachable, or the topic has an unexpected partition count.
    pub async fn ensure_control_topic(&self) -> Result<(), OpenError> {
        match self.log {
            LogKind::Kafka => Ok(ensure_auxiliary_topics(&self.kafka).await?),
            // Opening it creates the file.
            LogKind::Sqlite => Ok(()),
        }
    }
}
