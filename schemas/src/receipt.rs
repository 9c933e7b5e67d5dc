//! The receipt of a submission: where in the log it stands, so that a reader can ask for "at least mine".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Offset, PartitionId};

/// Where a submission stands in the log. Its text is opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Receipt {
    /// The partition.
    pub partition: PartitionId,
    /// The record's offset in it.
    pub offset: Offset,
}

/// A text that is no receipt of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a receipt of this service")]
pub struct ReceiptFault;

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        let (partition, offset) = text.split_once('.').ok_or(ReceiptFault)?;
        let offset: u64 = digits(offset)?;
        if offset >= i64::MAX as u64 {
            return Err(ReceiptFault);
        }
        Ok(Self { partition: PartitionId(digits(partition)?), offset: Offset(offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_receipt_survives_its_text(partition in 0..1024_u32, offset in 0..i64::MAX as u64) {
            let receipt = Receipt { partition: PartitionId(partition), offset: Offset(offset) };
            prop_assert_eq!(receipt.to_string().parse(), Ok(receipt));
        }

        #[test]
        fn no_text_panics_the_reader(text in ".*") {
            let _ = text.parse::<Receipt>();
        }
    }

    #[test]
    fn signs_blanks_and_overflow_are_no_receipts() {
        for text in ["", ".", "1.", ".1", "+1.2", "1.-2", " 1.2", "1.2.3", "1.99999999999999999999"]
        {
            assert_eq!(text.parse::<Receipt>(), Err(ReceiptFault), "{text:?}");
        }
    }
}
