//! Routes of administrators: none can be added without the role that it needs.

use std::fmt;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;

use super::guard::{AdminGuard, Gate, pass};
use super::role::Role;

/// Builds a router whose every route is guarded.
#[must_use]
pub struct AdminRoutes<S> {
    guard: AdminGuard,
    router: Router<S>,
}

impl<S> AdminRoutes<S>
where
    S: Clone + Send + Sync + 'static,
{
    /// No routes yet.
    pub fn new(guard: &AdminGuard) -> Self {
        Self { guard: guard.clone(), router: Router::new() }
    }

    /// Adds the methods of a path; all of them need this role. Other methods of the same path may need another, and
    /// are added on their own.
    ///
    /// # Panics
    /// If the path has one of the methods already: a mistake in the program, as everywhere in a router.
    pub fn route(mut self, needed: Role, path: &str, methods: MethodRouter<S>) -> Self {
        let gate = Gate { guard: self.guard.clone(), needed };
        self.router = self.router.route(path, methods.route_layer(from_fn_with_state(gate, pass)));
        self
    }

    /// The router, for others to be merged with.
    pub fn into_router(self) -> Router<S> {
        self.router
    }
}

impl<S> fmt::Debug for AdminRoutes<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AdminRoutes").field("router", &self.router).finish_non_exhaustive()
    }
}
