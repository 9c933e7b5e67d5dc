//! Random bits that nobody can guess.

use ring::rand::{SecureRandom, SystemRandom};

/// The operating system gave no random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bits")]
pub struct NoRandomBits;

/// Returns 128 random bits, fit for an id that must not be guessed.
///
/// # Errors
/// When the operating system gives none.
pub fn random_128_bits() -> Result<[u8; 16], NoRandomBits> {
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_| NoRandomBits)?;
    Ok(bits)
}

/// Returns 256 random bits, fit for a secret.
///
/// # Errors
/// When the operating system gives none.
pub fn random_256_bits() -> Result<[u8; 32], NoRandomBits> {
    let mut bits = [0; 32];
    SystemRandom::new().fill(&mut bits).map_err(|_| NoRandomBits)?;
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_do_not_repeat() {
        assert_ne!(random_128_bits(), random_128_bits());
        assert_ne!(random_256_bits(), random_256_bits());
    }
}
