//! The credentials of a request, taken from its head. Nothing is verified yet, so that a route which needs none costs
//! nothing.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::header::COOKIE;
use http::request::Parts;

use super::same_origin::RequestOrigin;
use crate::admin::{bearer_token, is_local};
use crate::client::{Client, ClientNetwork};

/// The credentials that a request carries.
#[derive(Clone)]
pub struct PresentedCredentials {
    /// The token of `Authorization: Bearer`.
    bearer: Option<Vec<u8>>,
    /// The `Cookie` headers.
    cookies: Vec<String>,
    origin: RequestOrigin,
    is_local: bool,
    /// As the connection has noted it.
    network: ClientNetwork,
}

impl std::fmt::Debug for PresentedCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PresentedCredentials(hidden)")
    }
}

impl PresentedCredentials {
    /// Takes the credentials from the head of a request.
    pub fn of(parts: &Parts) -> Self {
        let cookies = parts.headers.get_all(COOKIE).iter();
        let bearer = bearer_token(&parts.headers).map(<[u8]>::to_vec);
        let cookies: Vec<String> =
            cookies.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
        Self {
            // Credentials decide; only a request without any may be one of the same machine.
            is_local: bearer.is_none() && cookies.is_empty() && is_local(parts),
            origin: RequestOrigin::of(&parts.headers),
            network: parts.extensions.get().map_or(ClientNetwork::UNKNOWN, Client::network),
            bearer,
            cookies,
        }
    }

    /// Returns the bearer token.
    pub fn bearer(&self) -> Option<&[u8]> {
        self.bearer.as_deref()
    }

    /// Returns the `Cookie` headers.
    pub fn cookies(&self) -> impl Iterator<Item = &str> {
        self.cookies.iter().map(String::as_str)
    }

    /// Returns which page sent the request.
    pub fn origin(&self) -> RequestOrigin {
        self.origin
    }

    /// Returns the network of the client.
    pub fn network(&self) -> ClientNetwork {
        self.network
    }

    /// Whether a client on this machine sent the request, without any credentials.
    pub fn is_local(&self) -> bool {
        self.is_local
    }
}

impl<S: Sync> FromRequestParts<S> for PresentedCredentials {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}
