//! Reading that takes its time, on a thread where it may block.

use tokio::sync::mpsc;

use super::ReadError;

/// Begins `read`, which sends what it reads, up to so many ahead of whoever takes it; what went wrong comes last.
pub(super) fn in_background<T: Send + 'static>(
    ahead: usize,
    read: impl FnOnce(&mpsc::Sender<Result<T, ReadError>>) -> Result<(), ReadError> + Send + 'static,
) -> mpsc::Receiver<Result<T, ReadError>> {
    let (sender, receiver) = mpsc::channel(ahead);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read(&sender) {
            // Whoever does not want it has dropped the other end.
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}
