//! Watchers of a budget: open streams, all on one thread, so that they take little from the measured service.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::delivery::Shown;
use crate::event_stream::EventStream;
use crate::open_files;

/// Streams that are opened at the same time. Fewer than the kernel queues for a listener.
const OPENED_AT_ONCE: usize = 200;
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);
const SHOWN_TIMEOUT: Duration = Duration::from_secs(60);

/// Open streams of a budget.
pub struct Watchers {
    /// The number of people after which a watcher has seen enough; `None` while it is unknown.
    enough: watch::Sender<Option<u64>>,
    thread: JoinHandle<Result<Vec<Vec<Shown>>>>,
}

impl Watchers {
    /// Opens streams, and waits until all of them are.
    ///
    /// # Errors
    /// When one is not opened.
    pub async fn open(url: &str, path: &str, count: u32) -> Result<Self> {
        open_files::raise_limit_for(count)?;
        let (enough, people) = watch::channel(None);
        let (opened, mut all_opened) = mpsc::unbounded_channel();
        let (url, path) = (url.to_owned(), path.to_owned());
        let thread = std::thread::spawn(move || {
            let thread = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            thread.block_on(watch_all(&url, &path, count, people, opened))
        });
        let watchers = Self { enough, thread };
        let opening = async {
            for _ in 0..count {
                all_opened.recv().await?;
            }
            Some(())
        };
        match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
            Ok(Some(())) => Ok(watchers),
            // A watcher has failed.
            Ok(None) => Err(watchers.join().err().unwrap_or_else(|| anyhow!("a stream ended"))),
            Err(_) => Err(anyhow!("{count} streams were not opened within {OPEN_TIMEOUT:?}")),
        }
    }

    /// Waits until every watcher was shown `people`, and returns what each was shown.
    ///
    /// # Errors
    /// When a watcher is not shown them in time, or its stream has ended.
    pub async fn shown(self, people: u64) -> Result<Vec<Vec<Shown>>> {
        self.enough.send_replace(Some(people));
        tokio::task::spawn_blocking(move || self.join()).await?
    }

    fn join(self) -> Result<Vec<Vec<Shown>>> {
        self.thread.join().map_err(|_| anyhow!("the thread of the watchers panicked"))?
    }
}

async fn watch_all(
    url: &str,
    path: &str,
    count: u32,
    mut enough: watch::Receiver<Option<u64>>,
    opened: mpsc::UnboundedSender<()>,
) -> Result<Vec<Vec<Shown>>> {
    let opening = Arc::new(Semaphore::new(OPENED_AT_ONCE));
    let mut watchers = JoinSet::new();
    for _ in 0..count {
        let (url, path, opening) = (url.to_owned(), path.to_owned(), Arc::clone(&opening));
        let (enough, opened) = (enough.clone(), opened.clone());
        watchers.spawn(async move {
            let permit = opening.acquire().await?;
            let stream = EventStream::open(&url, &path, None).await?;
            drop(permit);
            let _ = opened.send(());
            watch(stream, enough).await
        });
    }
    drop(opened);
    let mut all = Vec::new();
    let mut last = std::pin::pin!(async {
        // The benchmark may have failed elsewhere.
        if enough.wait_for(Option::is_some).await.is_ok() {
            tokio::time::sleep(SHOWN_TIMEOUT).await;
        }
    });
    while all.len() < count as usize {
        tokio::select! {
            watcher = watchers.join_next() => all.push(watcher.context("no watcher")???),
            () = &mut last => {
                return Err(anyhow!("{} of {count} watchers were shown everyone", all.len()));
            }
        }
    }
    Ok(all)
}

/// Reads a stream until it has shown enough people.
async fn watch(
    mut stream: EventStream,
    mut enough: watch::Receiver<Option<u64>>,
) -> Result<Vec<Shown>> {
    let mut all: Vec<Shown> = Vec::new();
    loop {
        let people = *enough.borrow_and_update();
        if people.is_some_and(|people| all.last().is_some_and(|shown| shown.people >= people)) {
            return Ok(all);
        }
        tokio::select! {
            changed = enough.changed() => changed?,
            event = stream.next() => {
                let event = event?;
                if event.name == "aggregate" {
                    all.push(Shown { at: Instant::now(), people: people_in(&event.data)? });
                }
            }
        }
    }
}

fn people_in(data: &str) -> Result<u64> {
    /// The rest is skipped.
    #[derive(Deserialize)]
    struct Aggregate {
        people: u64,
    }
    let aggregate: Aggregate = serde_json::from_str(data).context("not an aggregate")?;
    Ok(aggregate.people)
}
