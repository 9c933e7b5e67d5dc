//! Receipts: the address of a submission's record, with which a client can read its own writes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{LogNumber, Offset, PartitionId};

/// The address of a record: log, partition and offset. Opaque to clients; its text is `partition.offset` in a
/// deployment's first log and `log.partition.offset` in later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Receipt {
    /// The log.
    pub log: LogNumber,
    /// The partition.
    pub partition: PartitionId,
    /// The offset in the partition.
    pub offset: Offset,
}

/// A text that is not a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a receipt of this service")]
pub struct ReceiptFault;

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.log > LogNumber::FIRST {
            write!(f, "{}.", self.log)?;
        }
        write!(f, "{}.{}", self.partition, self.offset)
    }
}

impl From<Receipt> for String {
    fn from(receipt: Receipt) -> Self {
        receipt.to_string()
    }
}

impl TryFrom<String> for Receipt {
    type Error = ReceiptFault;

    fn try_from(text: String) -> Result<Self, ReceiptFault> {
        text.parse()
    }
}

impl FromStr for Receipt {
    type Err = ReceiptFault;

    fn from_str(text: &str) -> Result<Self, ReceiptFault> {
        fn digits<N: FromStr>(text: &str) -> Result<N, ReceiptFault> {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            plain.then_some(text).and_then(|t| t.parse().ok()).ok_or(ReceiptFault)
        }
        let (address, offset) = text.rsplit_once('.').ok_or(ReceiptFault)?;
        let (log, partition) = match address.split_once('.') {
            Some((log, partition)) => (LogNumber(digits(log)?), partition),
            None => (LogNumber::FIRST, address),
        };
        let offset: u64 = digits(offset)?;
        if offset >= i64::MAX as u64 {
            return Err(ReceiptFault);
        }
        Ok(Self { log, partition: PartitionId(digits(partition)?), offset: Offset(offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_receipt_survives_its_text(
            log in 0..3_u32, partition in 0..1024_u32, offset in 0..i64::MAX as u64,
        ) {
            let (partition, offset) = (PartitionId(partition), Offset(offset));
            let receipt = Receipt { log: LogNumber(log), partition, offset };
            prop_assert_eq!(receipt.to_string().parse(), Ok(receipt));
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<Receipt>();
        }
    }

    #[test]
    fn malformed_receipts_are_rejected() {
        let texts = [
            "",
            ".",
            "1.",
            ".1",
            "..",
            "1..2",
            ".1.2",
            "1.2.",
            "+1.2",
            "1.-2",
            " 1.2",
            "1.2.3.4",
            "1.99999999999999999999",
        ];
        for text in texts {
            assert_eq!(text.parse::<Receipt>(), Err(ReceiptFault), "{text:?}");
        }
    }
}
