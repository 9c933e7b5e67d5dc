//! A router for administrator routes, each with the role that it requires.

use std::fmt;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;

use super::guard::{AdminGuard, RouteGuard, enforce};
use super::role::Role;

/// Builds a router whose routes are all guarded.
#[must_use]
pub struct AdminRoutes<S> {
    guard: AdminGuard,
    router: Router<S>,
}

impl<S> AdminRoutes<S>
where
    S: Clone + Send + Sync + 'static,
{
    /// Creates a builder without routes.
    pub fn new(guard: &AdminGuard) -> Self {
        Self { guard: guard.clone(), router: Router::new() }
    }

    /// Adds methods of a path that require a role. Methods that require another role are added by another call.
    ///
    /// # Panics
    /// If the path has one of the methods already: a bug, as in any router.
    pub fn route(mut self, required: Role, path: &str, methods: MethodRouter<S>) -> Self {
        let guard = RouteGuard { guard: self.guard.clone(), required };
        self.router =
            self.router.route(path, methods.route_layer(from_fn_with_state(guard, enforce)));
        self
    }

    /// Returns the router.
    pub fn into_router(self) -> Router<S> {
        self.router
    }
}

impl<S> fmt::Debug for AdminRoutes<S> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AdminRoutes").field("router", &self.router).finish_non_exhaustive()
    }
}
