//! Work that goes on when whoever waits for it goes away.
//!
//! A client that hangs up ends its handler. What was begun then must still be finished: an attempt that stays marked as
//! in flight would refuse the client's own repetition.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Runs in its caller as long as that waits, so that nothing is handed between threads; afterwards on its own.
pub(crate) struct ToTheEnd<F>
where
    F: Future + Send + 'static,
{
    work: Option<Pin<Box<F>>>,
}

pub(crate) fn to_the_end<F>(work: F) -> ToTheEnd<F>
where
    F: Future + Send + 'static,
{
    ToTheEnd { work: Some(Box::pin(work)) }
}

impl<F> Future for ToTheEnd<F>
where
    F: Future + Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Taken out meanwhile, so that work that panics is not begun again.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<F> Drop for ToTheEnd<F>
where
    F: Future + Send + 'static,
{
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                work.await;
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
    async fn work_that_is_left_alone_is_finished_all_the_same() {
        let (go_on, wait) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let mut work = to_the_end(async move {
            wait.await.unwrap();
            tell.send("done").unwrap();
        });
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        go_on.send(()).unwrap();
        assert_eq!(told.await.unwrap(), "done");
    }
}
