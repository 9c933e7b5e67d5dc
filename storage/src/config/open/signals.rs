//! Creates the handles of signals, which connect when they are used.

use std::sync::Arc;

use crate::config::embedded_files::SIGNALS_FILE;
use crate::config::{LogKind, StorageConfig};
use crate::signals::{
    KafkaSignalReader, KafkaSignalWriter, SignalEraser, SignalReader, SignalWriter,
    SqliteSignalReader, SqliteSignalWriter,
};

impl StorageConfig {
    /// Creates the writer of signals, which connects at the first append.
    pub fn signal_writer(&self) -> Arc<dyn SignalWriter> {
        match self.log {
            LogKind::Kafka => Arc::new(KafkaSignalWriter::new(&self.kafka)),
            LogKind::Sqlite => {
                Arc::new(SqliteSignalWriter::new(&self.sqlite_dir.join(SIGNALS_FILE)))
            }
        }
    }

    /// Creates the eraser of signals, which connects at the first erasure.
    pub fn signal_eraser(&self) -> Arc<dyn SignalEraser> {
        match self.log {
            LogKind::Kafka => Arc::new(KafkaSignalWriter::new(&self.kafka)),
            LogKind::Sqlite => {
                Arc::new(SqliteSignalWriter::new(&self.sqlite_dir.join(SIGNALS_FILE)))
            }
        }
    }

    /// Creates the reader of signals, which connects at each read.
    pub fn signal_reader(&self) -> Arc<dyn SignalReader> {
        match self.log {
            LogKind::Kafka => Arc::new(KafkaSignalReader::new(&self.kafka)),
            LogKind::Sqlite => {
                Arc::new(SqliteSignalReader::new(&self.sqlite_dir.join(SIGNALS_FILE)))
            }
        }
    }
}
