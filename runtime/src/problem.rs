//! Problem documents (RFC 9457): the format of every error response.
//!
//! `kind` has the catalogue of kinds, `pages` the pages behind their `type`, `faults` collects the faults of a body. A
//! problem is a response, or an item of a batch response. The caller decides when a problem applies.

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

/// One fault of a request, with its location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldFault {
    /// A JSON pointer (RFC 6901) into the request's body, for example `/allocation/health`.
    pub pointer: String,
    /// The fault at that location.
    pub detail: String,
}

/// A problem, assembled by its builder methods. One pointer in size, so that it is cheap as an error.
#[derive(Debug, Clone)]
pub struct Problem {
    inner: Box<Inner>,
}

#[derive(Debug, Clone)]
struct Inner {
    kind: ProblemKind,
    detail: String,
    instance: Option<String>,
    faults: Vec<FieldFault>,
    retry_after: Option<Duration>,
    headers: HeaderMap,
}

impl Problem {
    /// Creates a problem of a kind. The server adds the request's id to the response.
    pub fn new(kind: ProblemKind) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                detail: String::new(),
                instance: None,
                faults: Vec::new(),
                retry_after: None,
                headers: HeaderMap::new(),
            }),
        }
    }

    /// Sets the description of this occurrence.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.inner.detail = detail.into();
        self
    }

    /// Adds one fault of the request.
    #[must_use]
    pub fn fault(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.inner.faults.push(FieldFault { pointer: pointer.into(), detail: detail.into() });
        self
    }

    /// Adds several faults.
    #[must_use]
    pub fn faults(mut self, faults: impl IntoIterator<Item = FieldFault>) -> Self {
        self.inner.faults.extend(faults);
        self
    }

    /// Sets when to retry; sent as `Retry-After` in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.inner.retry_after = Some(pause);
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.inner.headers.insert(name, value);
        self
    }

    /// Sets the request's id. The server sets it on responses; batch items may set their own.
    #[must_use]
    pub fn instance(mut self, id: impl Into<String>) -> Self {
        self.inner.instance = Some(id.into());
        self
    }

    /// Returns the kind of the problem.
    pub fn kind(&self) -> ProblemKind {
        self.inner.kind
    }

    /// Returns the response status.
    pub fn status(&self) -> StatusCode {
        self.inner.kind.status()
    }

    /// Returns the faults added so far.
    pub fn recorded_faults(&self) -> &[FieldFault] {
        &self.inner.faults
    }

    /// Renders the problem as JSON.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Only strings and a number under string keys, which always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("/problems/{}", self.inner.kind.slug()))?;
        map.serialize_entry("title", self.inner.kind.title())?;
        map.serialize_entry("status", &self.inner.kind.status().as_u16())?;
        if !self.inner.detail.is_empty() {
            map.serialize_entry("detail", &self.inner.detail)?;
        }
        if let Some(instance) = &self.inner.instance {
            map.serialize_entry("instance", instance)?;
        }
        if !self.inner.faults.is_empty() {
            map.serialize_entry("errors", &self.inner.faults)?;
        }
        map.end()
    }
}

impl IntoResponse for Problem {
    /// Builds the response, without `instance`.
    ///
    /// The problem is kept in the extensions, so that the server can render it again with the request's id.
    fn into_response(self) -> Response {
        let mut response = Response::new(self.to_json().into());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.clone_from(&self.inner.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(pause) = self.inner.retry_after {
            let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}
