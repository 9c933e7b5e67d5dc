//! Reading that takes its time, on a thread where it may block.

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::ReadError;

/// Begins `read`, which sends what it reads, up to so many ahead of whoever takes it; what went wrong comes last. It has
/// a thread of its own: one that follows the log stays for long, and of tokio's there are only so many.
pub(super) fn in_background<T: Send + 'static>(
    ahead: usize,
    read: impl FnOnce(&mpsc::Sender<Result<T, ReadError>>) -> Result<(), ReadError> + Send + 'static,
) -> mpsc::Receiver<Result<T, ReadError>> {
    let (sender, receiver) = mpsc::channel(ahead);
    let (handle, spare) = (Handle::current(), sender.clone());
    let thread = std::thread::Builder::new().name("log-reader".into());
    let started = thread.spawn(move || {
        let _tokio = handle.enter();
        if let Err(error) = read(&sender) {
            // Whoever does not want it has dropped the other end.
            let _ = sender.blocking_send(Err(error));
        }
    });
    if let Err(error) = started {
        let _ = spare.try_send(Err(ReadError::unavailable(error)));
    }
    receiver
}
