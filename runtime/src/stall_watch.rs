//! Notices that the async runtime runs no tasks, because its threads are blocked.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// How often the runtime is given a task.
const INTERVAL: Duration = Duration::from_secs(1);
/// A task that has not run for this long is reported. Machines that are shared or swap take seconds.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// Watches a runtime until it shuts down. Each task comes from another thread, so it also wakes a worker that waits for
/// one that is blocked.
///
/// # Errors
/// If the thread cannot be started.
pub(crate) fn watch(runtime: &Handle) -> io::Result<()> {
    let runtime = runtime.clone();
    let thread = std::thread::Builder::new().name("stall-watch".into());
    thread.spawn(move || {
        while is_running(&runtime, STALLED_AFTER, || {}) {
            std::thread::sleep(INTERVAL);
        }
    })?;
    Ok(())
}

/// Waits until the runtime has run a task. `false` if it shuts down. Calls `stalled` once that takes too long.
fn is_running(runtime: &Handle, stalled_after: Duration, stalled: impl FnOnce()) -> bool {
    let (ran, has_run) = sync_channel(1);
    let since = Instant::now();
    runtime.spawn(async move {
        // The receiver waits until the task has run.
        let _ = ran.send(());
    });
    match has_run.recv_timeout(stalled_after) {
        Ok(()) => true,
        Err(RecvTimeoutError::Disconnected) => false,
        Err(RecvTimeoutError::Timeout) => {
            tracing::error!(seconds = stalled_after.as_secs(), "the async runtime has run no task");
            stalled();
            let is_running = has_run.recv().is_ok();
            tracing::warn!(
                seconds = since.elapsed().as_secs(),
                "the async runtime runs tasks again"
            );
            is_running
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_runtime_is_waited_for_and_one_that_has_ended_is_not() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let handle = runtime.handle().clone();
        assert!(is_running(&handle, Duration::from_secs(60), || panic!("it runs")));
        let (unblock, blocked) = sync_channel::<()>(0);
        runtime.spawn(async move { blocked.recv() });
        let mut was_stalled = false;
        let stalled = || {
            was_stalled = true;
            unblock.send(()).unwrap();
        };
        assert!(is_running(&handle, Duration::from_millis(1), stalled));
        assert!(was_stalled);
        drop(runtime);
        assert!(!is_running(&handle, Duration::from_secs(60), || panic!("it has ended")));
    }
}
