//! The issuers of persons whom this service itself vouches for. The issuer of an identity provider is a URL.

/// Vouches for a browser, by its cookies.
pub(crate) const ANONYMOUS: &str = "anonymous";
/// Vouches for the holder of a personal code.
pub(crate) const CODE: &str = "code";
/// Vouches for the owner of a mailbox.
pub(crate) const EMAIL: &str = "email";
