//! Receipts: the address of a submission's record, with which a client can read its own writes.
//!
//! Clients get the address with a signature, `3.1042-9f86d081884c7d65`: only the submitter knows the signed receipt of
//! the record. Releases before the signature gave the address alone. Such a receipt is still read, but proves nothing.

use std::fmt;
use std::str::FromStr;

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::{BudgetId, LogNumber, Offset, PartitionId, PersonSecret};

/// The address of a record: log, partition and offset. Its text is `partition.offset` in a deployment's first log and
/// `log.partition.offset` in later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordAddress {
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

impl fmt::Display for RecordAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.log > LogNumber::FIRST {
            write!(f, "{}.", self.log)?;
        }
        write!(f, "{}.{}", self.partition, self.offset)
    }
}

impl From<RecordAddress> for String {
    fn from(receipt: RecordAddress) -> Self {
        receipt.to_string()
    }
}

impl TryFrom<String> for RecordAddress {
    type Error = ReceiptFault;

    fn try_from(text: String) -> Result<Self, ReceiptFault> {
        text.parse()
    }
}

impl FromStr for RecordAddress {
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

/// A receipt in the form that clients get and present: the address, and a signature.
///
/// A signature is right for one budget alone, so whether it proves anything is known once the budget is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The address of the record.
    pub address: RecordAddress,
    /// `None` in a receipt of an earlier release.
    signature: Option<u64>,
}

impl Receipt {
    /// Length of a signature's text: 64 bits in hexadecimal.
    const SIGNATURE_CHARS: usize = 16;
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        match self.signature {
            Some(signature) => write!(f, "-{signature:0width$x}", width = Self::SIGNATURE_CHARS),
            None => Ok(()),
        }
    }
}

impl FromStr for Receipt {
    type Err = ReceiptFault;

    fn from_str(text: &str) -> Result<Self, ReceiptFault> {
        let Some((address, signature)) = text.split_once('-') else {
            return Ok(Self { address: text.parse()?, signature: None });
        };
        let is_hexadecimal = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if signature.len() != Self::SIGNATURE_CHARS || !signature.bytes().all(is_hexadecimal) {
            return Err(ReceiptFault);
        }
        let signature = u64::from_str_radix(signature, 16).map_err(|_| ReceiptFault)?;
        Ok(Self { address: address.parse()?, signature: Some(signature) })
    }
}

/// Whether a receipt proves that its holder submitted to a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptProof {
    /// The signature is that of the budget.
    Signed,
    /// Of an earlier release, of another budget, or made up.
    Unsigned,
}

/// Signs receipts and checks signatures, with a key derived from the deployment's secret.
#[derive(Clone)]
pub struct ReceiptSigner(hmac::Key);

impl ReceiptSigner {
    /// Creates a signer from key bytes; [`PersonSecret::receipt_signer`](crate::PersonSecret::receipt_signer)
    /// derives them.
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Signs the receipt of a submission to a budget.
    pub fn sign(&self, budget: &BudgetId, address: RecordAddress) -> Receipt {
        Receipt { address, signature: Some(self.signature(budget, address)) }
    }

    /// Returns whether a receipt is one of this deployment for a submission to the budget.
    pub fn proof(&self, budget: &BudgetId, receipt: Receipt) -> ReceiptProof {
        // One comparison of 64 bits takes the same time for any difference.
        match receipt.signature {
            Some(signature) if signature == self.signature(budget, receipt.address) => {
                ReceiptProof::Signed
            }
            _ => ReceiptProof::Unsigned,
        }
    }

    /// The first 64 bits of HMAC-SHA-256 over log, partition, offset and budget.
    fn signature(&self, budget: &BudgetId, address: RecordAddress) -> u64 {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&address.log.0.to_be_bytes());
        context.update(&address.partition.0.to_be_bytes());
        context.update(&address.offset.0.to_be_bytes());
        context.update(budget.as_str().as_bytes());
        let tag = context.sign();
        tag.as_ref().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }
}

impl PersonSecret {
    /// Derives the key that signs receipts.
    pub fn receipt_signer(&self) -> ReceiptSigner {
        ReceiptSigner::new(&self.derived_secret("receipts"))
    }
}

impl fmt::Debug for ReceiptSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptSigner(hidden)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::PersonSecret;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_receipt_survives_its_text(
            log in 0..3_u32, partition in 0..1024_u32, offset in 0..i64::MAX as u64,
        ) {
            let (partition, offset) = (PartitionId(partition), Offset(offset));
            let receipt = RecordAddress { log: LogNumber(log), partition, offset };
            prop_assert_eq!(receipt.to_string().parse(), Ok(receipt));
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<RecordAddress>();
            let _ = text.parse::<Receipt>();
        }

        #[test]
        fn a_signature_survives_its_text_and_proves_one_submission_to_one_budget_alone(
            log in 0..3_u32, partition in 0..1024_u32, offset in 0..i64::MAX as u64 - 1, made_up: u64,
        ) {
            let address = |offset| RecordAddress {
                log: LogNumber(log), partition: PartitionId(partition), offset: Offset(offset),
            };
            let (town, park) = (budget("town"), budget("park"));
            let signed = signer(1).sign(&town, address(offset));
            prop_assert_eq!(signed.to_string().parse(), Ok(signed));
            prop_assert_eq!(signer(1).proof(&town, signed), ReceiptProof::Signed);
            prop_assert_eq!(signer(1).proof(&park, signed), ReceiptProof::Unsigned);
            prop_assert_eq!(signer(2).proof(&town, signed), ReceiptProof::Unsigned);
            let of_next = Receipt { address: address(offset + 1), ..signed };
            prop_assert_eq!(signer(1).proof(&town, of_next), ReceiptProof::Unsigned);
            let guessed = Receipt { signature: Some(made_up), ..signed };
            prop_assert!(guessed == signed || signer(1).proof(&town, guessed) == ReceiptProof::Unsigned);
        }
    }

    /// Signs as the deployment whose secret has this byte 32 times.
    fn signer(secret: u8) -> ReceiptSigner {
        PersonSecret::new(&[secret; 32]).unwrap().receipt_signer()
    }

    fn budget(id: &str) -> BudgetId {
        BudgetId::parse(id).unwrap()
    }

    #[test]
    fn signed_receipts_of_earlier_releases_stay_valid() {
        let signed: Receipt = "3.1042-0ce9c081c4076a53".parse().unwrap();
        assert_eq!(signer(7).sign(&budget("town"), signed.address), signed);
        let unsigned: Receipt = "3.1042".parse().unwrap();
        assert_eq!(unsigned.address, signed.address);
        assert_eq!(signer(7).proof(&budget("town"), unsigned), ReceiptProof::Unsigned);
    }

    #[test]
    fn malformed_signatures_are_rejected() {
        for wrong in [
            "3.1-",
            "-0123456789abcdef",
            "3.1-0123456789ABCDEF",
            "3.1-0123456789abcdef0",
            "3.1-0123456789abcde",
            "3.1-+123456789abcdef",
            "3.1--123456789abcdef",
        ] {
            assert_eq!(wrong.parse::<Receipt>(), Err(ReceiptFault), "{wrong}");
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
            assert_eq!(text.parse::<RecordAddress>(), Err(ReceiptFault), "{text:?}");
        }
    }
}
