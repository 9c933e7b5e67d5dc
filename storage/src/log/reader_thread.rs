//! Blocking reads on a thread of their own.

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::ReadError;

/// Spawns a thread that runs `read`, and returns the receiver of its items. An error of `read` is the last item. The
/// thread runs at most `capacity` items ahead of the receiver.
///
/// Not tokio's blocking pool: a reader that follows the log would occupy one of its few threads for a long time.
pub(crate) fn spawn_reader<T: Send + 'static>(
    capacity: usize,
    read: impl FnOnce(&mpsc::Sender<Result<T, ReadError>>) -> Result<(), ReadError> + Send + 'static,
) -> mpsc::Receiver<Result<T, ReadError>> {
    let (sender, receiver) = mpsc::channel(capacity);
    let (handle, spawn_failed) = (Handle::current(), sender.clone());
    let thread = std::thread::Builder::new().name("log-reader".into());
    let spawned = thread.spawn(move || {
        let _runtime = handle.enter();
        if let Err(error) = read(&sender) {
            // A send fails only when the receiver was dropped, and then the error is of no interest.
            let _ = sender.blocking_send(Err(error));
        }
    });
    if let Err(error) = spawned {
        let _ = spawn_failed.try_send(Err(ReadError::unavailable(error)));
    }
    receiver
}
