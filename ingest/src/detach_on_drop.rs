//! A future that runs to its end even if its caller stops waiting.
//!
//! A client that hangs up drops its handler. Work that has begun must still finish: an attempt that stayed marked as in
//! flight would reject the client's own retry.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// A future that becomes a task of its own when it is dropped unfinished.
///
/// Until then its caller polls it, so that no work is handed between threads.
pub(crate) struct DetachOnDrop<F>
where
    F: Future + Send + 'static,
{
    future: Option<Pin<Box<F>>>,
}

/// Wraps a future so that dropping it detaches it instead of cancelling it.
pub(crate) fn detach_on_drop<F>(future: F) -> DetachOnDrop<F>
where
    F: Future + Send + 'static,
{
    DetachOnDrop { future: Some(Box::pin(future)) }
}

impl<F> Future for DetachOnDrop<F>
where
    F: Future + Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out during the poll, so that a future that panics is not polled again.
        let Some(mut future) = self.future.take() else { return Poll::Pending };
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() {
            self.future = Some(future);
        }
        polled
    }
}

impl<F> Drop for DetachOnDrop<F>
where
    F: Future + Send + 'static,
{
    fn drop(&mut self) {
        if let Some(future) = self.future.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                future.await;
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_future_dropped_while_pending_still_completes() {
        let (resume, resumed) = oneshot::channel::<()>();
        let (report, reported) = oneshot::channel();
        let mut future = detach_on_drop(async move {
            resumed.await.unwrap();
            report.send("done").unwrap();
        });
        assert!((&mut future).now_or_never().is_none());
        drop(future);
        resume.send(()).unwrap();
        assert_eq!(reported.await.unwrap(), "done");
    }
}
