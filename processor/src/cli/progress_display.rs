//! Displaying a command's progress while it runs.

use runtime::progress::{ProgressUpdate, show};
use tokio_util::sync::CancellationToken;

/// Displays progress until `work` is complete, and returns its result. `label` precedes the bar.
pub(super) async fn show_while<T>(
    label: &str,
    poll: impl Fn() -> ProgressUpdate,
    work: impl Future<Output = T>,
) -> T {
    let ended = CancellationToken::new();
    let display = show(label, ended.clone(), |_| poll());
    let work = async {
        let result = work.await;
        ended.cancel();
        result
    };
    tokio::join!(work, display).0
}
