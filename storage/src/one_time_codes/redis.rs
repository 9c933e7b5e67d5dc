//! One-time codes in Redis, shared by all ingest processes. Each operation is one call of a script.

use async_trait::async_trait;
use redis::Script;
use schemas::redis::{
    ISSUE_CODE_SCRIPT, REDEEM_CODE_SCRIPT, issue_code_arguments, mailbox_key, one_time_code_key,
    redeem_code_arguments,
};
use schemas::{CodeHolder, KeyedHash};

use super::{CodesUnavailable, IssueOutcome, OneTimeCodes};
use crate::redis_connection::{RedisCallError, RedisConfig, RedisConnection};

/// One-time codes in Redis.
pub struct RedisOneTimeCodes {
    connection: RedisConnection,
    issue: Script,
    redeem: Script,
}

impl RedisOneTimeCodes {
    /// Starts connecting, and waits at most about a second for the first attempt. Does not fail if Redis is
    /// unreachable.
    pub async fn connect(config: &RedisConfig) -> Self {
        Self {
            connection: RedisConnection::open(config).await,
            issue: Script::new(ISSUE_CODE_SCRIPT),
            redeem: Script::new(REDEEM_CODE_SCRIPT),
        }
    }
}

#[async_trait]
impl OneTimeCodes for RedisOneTimeCodes {
    async fn issue(
        &self,
        holder: &CodeHolder,
        code: &KeyedHash,
    ) -> Result<IssueOutcome, CodesUnavailable> {
        let mut invocation = self.issue.prepare_invoke();
        invocation.key(one_time_code_key(&holder.slot)).key(mailbox_key(&holder.mailbox));
        for argument in issue_code_arguments(code) {
            invocation.arg(argument);
        }
        let run = async |mut redis| invocation.invoke_async(&mut redis).await;
        let stored: bool = self.connection.call(run).await?;
        Ok(if stored { IssueOutcome::Issued } else { IssueOutcome::Throttled })
    }

    async fn redeem(
        &self,
        holder: &CodeHolder,
        code: &KeyedHash,
        client: Option<&KeyedHash>,
    ) -> Result<bool, CodesUnavailable> {
        let mut invocation = self.redeem.prepare_invoke();
        invocation.key(one_time_code_key(&holder.slot));
        for argument in redeem_code_arguments(code, client) {
            invocation.arg(argument);
        }
        let run = async |mut redis| invocation.invoke_async(&mut redis).await;
        Ok(self.connection.call(run).await?)
    }
}

impl From<RedisCallError> for CodesUnavailable {
    fn from(error: RedisCallError) -> Self {
        Self(error.to_string())
    }
}
