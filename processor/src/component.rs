//! Background components of the processor: a panic stops the process, since no other component does the work. The
//! budget closer catches its own panics and retries.

use storage::store::StoreError;
use tokio_util::sync::CancellationToken;

/// Why the processor ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorFailed {
    /// The generation registry cannot be read any more.
    #[error("{0}, or in a mode that only a newer release knows; the processor stopped")]
    RegistryUnreadable(StoreError),
    /// A bug.
    #[error("a bug: the {0} panicked; the processor stopped")]
    ComponentPanicked(&'static str),
}

/// A spawned component, which cancels `stop` when it panics.
pub(crate) struct Component {
    name: &'static str,
    task: tokio::task::JoinHandle<Result<(), ProcessorFailed>>,
}

impl Component {
    /// Spawns a component that runs until the processor stops.
    pub fn spawn(
        name: &'static str,
        stop: &CancellationToken,
        run: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self::spawn_fallible(name, stop, async move {
            run.await;
            Ok(())
        })
    }

    /// Spawns a component that may end the processor by itself.
    pub fn spawn_fallible(
        name: &'static str,
        stop: &CancellationToken,
        run: impl Future<Output = Result<(), ProcessorFailed>> + Send + 'static,
    ) -> Self {
        let (stop, run) = (stop.clone(), tokio::spawn(run));
        let task = tokio::spawn(async move {
            run.await.unwrap_or_else(|error| {
                if error.is_cancelled() {
                    // The runtime shuts down.
                    return Ok(());
                }
                tracing::error!(component = name, %error, "component panicked, stopping the processor");
                stop.cancel();
                Err(ProcessorFailed::ComponentPanicked(name))
            })
        });
        Self { name, task }
    }

    /// Waits for the end of the component.
    ///
    /// # Errors
    /// When it panicked, or has ended the processor: the reason.
    pub async fn ended(self) -> Result<(), ProcessorFailed> {
        self.task.await.unwrap_or(Err(ProcessorFailed::ComponentPanicked(self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_component_that_panics_stops_the_processor_and_is_named() {
        let stop = CancellationToken::new();
        let works = Component::spawn("worker", &stop, stop.clone().cancelled_owned());
        let panics = Component::spawn("publisher", &stop, async { panic!("injected fault") });
        stop.cancelled().await;
        let failed = panics.ended().await.map_err(|failed| failed.to_string());
        assert_eq!(failed, Err("a bug: the publisher panicked; the processor stopped".to_owned()));
        assert!(works.ended().await.is_ok());
    }

    #[tokio::test]
    async fn a_component_that_ends_stops_nothing() {
        let stop = CancellationToken::new();
        assert!(Component::spawn("publisher", &stop, async {}).ended().await.is_ok());
        assert!(!stop.is_cancelled());
    }
}
