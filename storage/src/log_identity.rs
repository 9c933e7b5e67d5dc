//! The identity of a log, by which a recreated topic is detected.

/// Identifies a log: a topic that was deleted and created again under the same name is another log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogIdentity {
    /// Id of the Kafka cluster, or of the embedded log.
    pub cluster_id: String,
    /// Id of the topic; empty where the client cannot query it.
    pub topic_id: String,
}
