//! Receipts: the address of a submission's record, with which a client can read its own writes.
//!
//! Clients get the address with a signature, `3.1042-9f86d081884c7d65`: only who submitted knows a signed receipt of the
//! record. Releases before the signature gave the address alone. Such a receipt is still read, but proves nothing.

use std::fmt;
use std::str::FromStr;

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::{LogNumber, Offset, PartitionId};

/// The address of a record: log, partition and offset. Its text is `partition.offset` in a deployment's first log and
/// `log.partition.offset` in later ones.
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

/// A receipt with the signature that makes it hard to guess: its text is given to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedReceipt {
    receipt: Receipt,
    signature: u64,
}

impl SignedReceipt {
    /// Length of a signature's text: 64 bits in hexadecimal.
    const SIGNATURE_CHARS: usize = 16;
}

impl fmt::Display for SignedReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:0width$x}", self.receipt, self.signature, width = Self::SIGNATURE_CHARS)
    }
}

/// Whether a receipt proves that this deployment gave it to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiptProof {
    /// The signature is right.
    Signed,
    /// The receipt has no signature: of an earlier release, or made up.
    Unsigned,
}

/// Signs receipts and checks signatures, with a key derived from the deployment's secret.
#[derive(Clone)]
pub struct ReceiptSigner(hmac::Key);

impl ReceiptSigner {
    /// Creates a signer from key bytes; [`PersonKeyHasher::receipt_signer`](crate::PersonKeyHasher::receipt_signer)
    /// derives them.
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Signs a receipt.
    pub fn sign(&self, receipt: Receipt) -> SignedReceipt {
        SignedReceipt { receipt, signature: self.signature(receipt) }
    }

    /// Parses a receipt as a client presents it.
    ///
    /// # Errors
    /// When the text is no receipt, or its signature is wrong.
    pub fn parse(&self, text: &str) -> Result<(Receipt, ReceiptProof), ReceiptFault> {
        let Some((address, signature)) = text.split_once('-') else {
            return Ok((text.parse()?, ReceiptProof::Unsigned));
        };
        let is_hexadecimal = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if signature.len() != SignedReceipt::SIGNATURE_CHARS
            || !signature.bytes().all(is_hexadecimal)
        {
            return Err(ReceiptFault);
        }
        let receipt = address.parse()?;
        let signature = u64::from_str_radix(signature, 16).map_err(|_| ReceiptFault)?;
        // One comparison of 64 bits takes the same time for any difference.
        if signature == self.signature(receipt) {
            Ok((receipt, ReceiptProof::Signed))
        } else {
            Err(ReceiptFault)
        }
    }

    /// The first 64 bits of HMAC-SHA-256 over log, partition and offset.
    fn signature(&self, receipt: Receipt) -> u64 {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&receipt.log.0.to_be_bytes());
        address[4..8].copy_from_slice(&receipt.partition.0.to_be_bytes());
        address[8..].copy_from_slice(&receipt.offset.0.to_be_bytes());
        let tag = hmac::sign(&self.0, &address);
        tag.as_ref().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
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
    use crate::PersonKeyHasher;
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
            let _ = signer(1).parse(&text);
        }

        #[test]
        fn a_signed_receipt_survives_its_text_and_no_other_signature_is_taken(
            log in 0..3_u32, partition in 0..1024_u32, offset in 0..i64::MAX as u64, wrong: u64,
        ) {
            let (partition, offset) = (PartitionId(partition), Offset(offset));
            let receipt = Receipt { log: LogNumber(log), partition, offset };
            let signed = signer(1).sign(receipt);
            prop_assert_eq!(
                signer(1).parse(&signed.to_string()),
                Ok((receipt, ReceiptProof::Signed))
            );
            prop_assert_eq!(signer(2).parse(&signed.to_string()), Err(ReceiptFault));
            let made_up = format!("{receipt}-{wrong:016x}");
            prop_assert!(wrong == signed.signature || signer(1).parse(&made_up).is_err());
        }
    }

    /// Signs as the deployment whose secret has this byte 32 times.
    fn signer(secret: u8) -> ReceiptSigner {
        PersonKeyHasher::new(&[secret; 32]).unwrap().receipt_signer()
    }

    #[test]
    fn signed_receipts_of_earlier_releases_stay_valid() {
        let receipt =
            Receipt { log: LogNumber::FIRST, partition: PartitionId(3), offset: Offset(1_042) };
        assert_eq!(signer(7).sign(receipt).to_string(), "3.1042-f91cd7a06c030f2b");
        assert_eq!(signer(7).parse("3.1042"), Ok((receipt, ReceiptProof::Unsigned)));
    }

    #[test]
    fn malformed_signatures_are_rejected() {
        let right = signer(7).sign(Receipt {
            log: LogNumber::FIRST,
            partition: PartitionId(3),
            offset: Offset(1),
        });
        let text = right.to_string();
        for wrong in [
            "3.1-".to_owned(),
            text.to_uppercase(),
            format!("{text}0"),
            text[..text.len() - 1].to_owned(),
            text.replace("3.1-", "3.2-"),
            text.replace("3.1-", "3.1-+"),
            text.replace("3.1-", "-"),
        ] {
            assert_eq!(signer(7).parse(&wrong), Err(ReceiptFault), "{wrong}");
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
