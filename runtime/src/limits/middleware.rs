//! The layers of limited routes: of reads, and of writes that are charged before or by their handler.
//!
//! Each sheds a request before it is charged. A write that its handler charges counts as admitted from then on, once its
//! body has come: one whose body arrives slowly takes nobody's place. A write that is charged before its handler is shed like
//! the others and counts for nothing, since its body has yet to come.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::admission::RequestPermit;
use super::policy::EndpointClass;
use super::request_limits::{Applicable, RequestLimits};
use super::subject::PersonHash;
use super::verdict::Verdict;
use crate::problem::{Problem, ProblemKind};

/// When a write is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeTiming {
    /// Before its handler, as one item.
    BeforeHandler,
    /// By its handler, through a [`LimitTicket`], once the body is parsed. A request whose earlier refusal still holds
    /// is answered before its body is read.
    ByHandler,
    /// By its handler, which also answers remembered refusals, so that a form keeps its input.
    ByHandlerAlone,
}

/// The state of [`limit_write`].
#[derive(Debug, Clone)]
pub struct WriteLimit {
    /// The limits.
    pub limits: RequestLimits,
    /// The class of the route.
    pub class: EndpointClass,
    /// When the request is charged.
    pub charging: ChargeTiming,
}

/// Admits a write or sheds it.
///
/// Charges it once, with its handler if the handler does so, and adds the headers of limits to its response.
pub async fn limit_write(
    State(WriteLimit { limits, class, charging }): State<WriteLimit>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(shed) = limits.check_admission(class) {
        return shed.into_response();
    }
    let (mut head, body) = request.into_parts();
    let applicable = limits.applicable(class, &mut head);
    if charging == ChargeTiming::ByHandler
        && let Some(problem) = limits.find_denial(&applicable).and_then(|denial| denial.problem())
    {
        return problem.into_response();
    }
    if charging == ChargeTiming::ByHandlerAlone {
        let applicable = limits.applicable(EndpointClass::SignIn, &mut head);
        head.extensions.insert(SignInTicket(LimitTicket::new(limits.clone(), applicable)));
    }
    let ticket = LimitTicket::new(limits, applicable);
    if charging == ChargeTiming::BeforeHandler
        && let Err(problem) = ticket.charge_admitted(&[], 1).await
    {
        return problem.into_response();
    }
    head.extensions.insert(ticket.clone());
    let mut response = next.run(Request::from_parts(head, body)).await;
    // A handler that refuses a request before it knows the person has charged nothing.
    if !ticket.is_charged()
        && let Err(problem) = ticket.charge_admitted(&[], 1).await
        && !(charging == ChargeTiming::ByHandlerAlone && response.status().is_redirection())
    {
        return problem.into_response();
    }
    ticket.add_to(&mut response);
    response
}

/// The right of a handler to charge its request.
#[derive(Debug, Clone)]
pub struct LimitTicket(Arc<Ticket>);

#[derive(Debug)]
struct Ticket {
    limits: RequestLimits,
    applicable: Applicable,
    /// `None` until the request is charged.
    verdict: Mutex<Option<Charged>>,
    /// From the charge on, until the request is answered, fails or is abandoned.
    permit: OnceLock<RequestPermit>,
}

/// The outcome of a charge.
#[derive(Debug, Clone)]
enum Charged {
    /// No policy is shown: none applies, or the request is shed.
    Unlimited,
    /// The outcome of the policies.
    Verdict(Verdict),
}

/// The right of a form's handler to charge an attempt to sign in, for a form that has a personal code.
#[derive(Debug, Clone)]
pub struct SignInTicket(LimitTicket);

impl SignInTicket {
    /// Charges one attempt.
    ///
    /// # Errors
    /// The problem of a refused attempt.
    pub async fn charge(&self) -> Result<(), Problem> {
        self.0.charge_admitted(&[], 1).await
    }
}

impl LimitTicket {
    fn new(limits: RequestLimits, applicable: Applicable) -> Self {
        let (verdict, permit) = (Mutex::default(), OnceLock::new());
        Self(Arc::new(Ticket { limits, applicable, verdict, permit }))
    }

    /// Admits the request and charges it, all its policies or none: so many items, of them so many of each person.
    ///
    /// # Errors
    /// The problem of a request that is shed or refused.
    pub async fn charge(&self, people: &[(PersonHash, u32)], items: u32) -> Result<(), Problem> {
        let Ticket { limits, applicable, permit, .. } = &*self.0;
        if permit.get().is_none() {
            let admitted = limits.admit(applicable.class()).inspect_err(|_| {
                // A shed request is never charged.
                self.settle(Charged::Unlimited);
            })?;
            // A request has one permit, whichever call has set it.
            let _ = permit.set(admitted);
        }
        self.charge_admitted(people, items).await
    }

    async fn charge_admitted(
        &self,
        people: &[(PersonHash, u32)],
        items: u32,
    ) -> Result<(), Problem> {
        let Ticket { limits, applicable, .. } = &*self.0;
        if applicable.is_empty() {
            self.settle(Charged::Unlimited);
            return Ok(());
        }
        let verdict = limits.charge_write(applicable, people, items).await;
        let refusal = verdict.as_ref().and_then(Verdict::problem);
        self.settle(verdict.map_or(Charged::Unlimited, Charged::Verdict));
        refusal.map_or(Ok(()), Err)
    }

    fn settle(&self, charged: Charged) {
        *self.0.verdict.lock() = Some(charged);
    }

    fn is_charged(&self) -> bool {
        self.0.verdict.lock().is_some()
    }

    fn add_to(&self, response: &mut Response) {
        let verdict = self.0.verdict.lock();
        if let Some(Charged::Verdict(verdict)) = &*verdict {
            verdict.add_to(response.headers_mut());
        }
    }
}

/// Extracts the ticket. Fails on a route without [`limit_write`].
impl<S: Sync> FromRequestParts<S> for LimitTicket {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        extract_ticket(parts)
    }
}

/// Extracts the ticket. Fails on a route without [`limit_write`] by the handler alone.
impl<S: Sync> FromRequestParts<S> for SignInTicket {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        extract_ticket(parts)
    }
}

fn extract_ticket<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, Problem> {
    parts.extensions.get::<T>().cloned().ok_or_else(|| {
        // No path: it names persons.
        let route = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
        tracing::error!(route, "route has a limit ticket but no limits");
        Problem::new(ProblemKind::Internal)
    })
}

/// Limits reads, by the counters of this process alone: one atomic addition, one hash lookup for each policy, and none
/// where no policy applies.
#[derive(Debug, Clone)]
pub struct ReadLimitLayer {
    limits: RequestLimits,
    class: EndpointClass,
}

impl ReadLimitLayer {
    /// Creates the layer of routes of a class.
    pub fn new(limits: &RequestLimits, class: EndpointClass) -> Self {
        Self { limits: limits.clone(), class }
    }
}

impl<S> Layer<S> for ReadLimitLayer {
    type Service = LimitedReads<S>;

    fn layer(&self, inner: S) -> LimitedReads<S> {
        LimitedReads { inner, limit: self.clone() }
    }
}

/// A limited route.
#[derive(Debug, Clone)]
pub struct LimitedReads<S> {
    inner: S,
    limit: ReadLimitLayer,
}

impl<S> Service<Request> for LimitedReads<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = LimitedRead<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let ReadLimitLayer { limits, class } = &self.limit;
        let permit = match limits.admit(*class) {
            Ok(permit) => permit,
            Err(shed) => return LimitedRead::refused(shed),
        };
        let (mut head, body) = request.into_parts();
        let verdict = limits.charge_read(&limits.applicable(*class, &mut head));
        if let Some(refusal) = verdict.as_ref().and_then(Verdict::problem) {
            return LimitedRead::refused(refusal);
        }
        let inner = self.inner.call(Request::from_parts(head, body));
        LimitedRead { inner: Some(inner), permit: Some(permit), verdict, refusal: None }
    }
}

pin_project! {
    /// The handling of one limited read.
    pub struct LimitedRead<F> {
        // None if the request is shed or a limit is exceeded.
        #[pin]
        inner: Option<F>,
        // Until the response headers.
        permit: Option<RequestPermit>,
        verdict: Option<Verdict>,
        refusal: Option<Problem>,
    }
}

impl<F> LimitedRead<F> {
    fn refused(refusal: Problem) -> Self {
        Self { inner: None, permit: None, verdict: None, refusal: Some(refusal) }
    }
}

impl<F> Future for LimitedRead<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            let refusal = this.refusal.take();
            let problem = refusal.unwrap_or_else(|| Problem::new(ProblemKind::Internal));
            return Poll::Ready(Ok(problem.into_response()));
        };
        let mut response = ready!(inner.poll(cx))?;
        drop(this.permit.take());
        if let Some(verdict) = this.verdict {
            verdict.add_to(response.headers_mut());
        }
        Poll::Ready(Ok(response))
    }
}
