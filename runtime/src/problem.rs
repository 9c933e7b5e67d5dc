//! Problems (RFC 9457): the one form in which anything that goes wrong is told to a client.
//!
//! The catalogue of kinds is in `kind`, the pages that their `type` leads to in `pages`, the faults of a body in `faults`. A problem answers a request
//! as a response, or stands as an item inside a batch answer. When a problem is right is the caller's decision.

mod faults;
mod kind;
mod pages;

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

pub use faults::{Faults, member_pointer};
pub use kind::ProblemKind;
pub use pages::pages;

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One thing that is wrong with a request, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// A JSON pointer (RFC 6901) into the request's body, for example `/allocation/health`.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// A problem, built up by its methods. One pointer in size, so that it is cheap as an error.
#[derive(Debug, Clone)]
pub struct Problem {
    parts: Box<Parts>,
}

#[derive(Debug, Clone)]
struct Parts {
    kind: ProblemKind,
    detail: String,
    instance: Option<String>,
    faults: Vec<Fault>,
    retry_after: Option<Duration>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem of a kind. The id of the request is filled in where the response leaves.
    pub fn new(kind: ProblemKind) -> Self {
        Self {
            parts: Box::new(Parts {
                kind,
                detail: String::new(),
                instance: None,
                faults: Vec::new(),
                retry_after: None,
                headers: HeaderMap::new(),
            }),
        }
    }

    /// What is wrong this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.parts.detail = detail.into();
        self
    }

    /// Adds one fault of the request.
    #[must_use]
    pub fn fault(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.parts.faults.push(Fault { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Adds several faults.
    #[must_use]
    pub fn faults(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.parts.faults.extend(faults);
        self
    }

    /// When it makes sense to try again; sent as `Retry-After` in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.parts.retry_after = Some(wait);
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.parts.headers.insert(name, value);
        self
    }

    /// The request that it happened to. Responses get theirs from the server; items of a batch may be given one.
    #[must_use]
    pub fn instance(mut self, id: impl Into<String>) -> Self {
        self.parts.instance = Some(id.into());
        self
    }

    /// The kind of the problem.
    pub fn kind(&self) -> ProblemKind {
        self.parts.kind
    }

    /// The status with which it is answered.
    pub fn status(&self) -> StatusCode {
        self.parts.kind.status()
    }

    /// The faults so far.
    pub fn noted_faults(&self) -> &[Fault] {
        &self.parts.faults
    }

    /// The problem as JSON.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Strings and a number under string keys: there is nothing in it that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("/problems/{}", self.parts.kind.slug()))?;
        map.serialize_entry("title", self.parts.kind.title())?;
        map.serialize_entry("status", &self.parts.kind.status().as_u16())?;
        if !self.parts.detail.is_empty() {
            map.serialize_entry("detail", &self.parts.detail)?;
        }
        if let Some(instance) = &self.parts.instance {
            map.serialize_entry("instance", instance)?;
        }
        if !self.parts.faults.is_empty() {
            map.serialize_entry("errors", &self.parts.faults)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    /// A whole response, without `instance`. It carries the problem itself along, so that the server can write it
    /// again with the id of the request.
    fn into_response(self) -> Response {
        let mut response = Response::new(self.to_json().into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.clone_from(&self.parts.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.parts.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}
