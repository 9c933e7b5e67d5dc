//! How a simulated process is crashed and stalled: at any point where one of its tasks waits.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use crate::world::{World, lock};

/// More often than this nobody is woken in a run that gets anywhere.
const MOST_POLLS: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
pub enum Misfortune {
    Crash,
    Stall(Duration),
}

/// A process has met with its misfortune.
#[derive(Debug)]
pub struct Event {
    pub process: usize,
    pub misfortune: Misfortune,
}

struct Fuse {
    polls_left: u64,
    misfortune: Misfortune,
}

pub struct Control {
    process: usize,
    world: Arc<World>,
    events: UnboundedSender<Event>,
    alive: AtomicBool,
    stalled: AtomicBool,
    polls: AtomicU64,
    fuse: Mutex<Option<Fuse>>,
    /// The tasks that were to go on during a stall.
    wakers: Mutex<Vec<Waker>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Control {
    pub fn new(process: usize, world: Arc<World>, events: UnboundedSender<Event>) -> Self {
        Self {
            process,
            world,
            events,
            alive: AtomicBool::new(true),
            stalled: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            fuse: Mutex::default(),
            wakers: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Runs a task of this process.
    pub fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let control = Arc::clone(self);
        let task = AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if ended.is_err() {
                control.world.fail(format!("process {} panicked", control.process));
            }
        });
        let task = tokio::spawn(Stallable { task: Box::pin(task), control: Arc::clone(self) });
        lock(&self.tasks).push(task.abort_handle());
        task.abort_handle()
    }

    /// The process meets with a misfortune when its tasks have waited this many times more.
    pub fn light_fuse(&self, polls_left: u64, misfortune: Misfortune) {
        *lock(&self.fuse) = Some(Fuse { polls_left, misfortune });
    }

    pub fn put_fuse_out(&self) {
        *lock(&self.fuse) = None;
    }

    /// Ends every task where it waits now.
    pub fn kill(&self) {
        self.alive.store(false, Ordering::Relaxed);
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
    }

    /// Lets a stalled process go on.
    pub fn resume(&self) {
        self.stalled.store(false, Ordering::Relaxed);
        lock(&self.wakers).drain(..).for_each(Waker::wake);
    }

    /// One of the tasks waits: the fuse burns down.
    fn waits(&self) {
        if self.polls.fetch_add(1, Ordering::Relaxed) == MOST_POLLS {
            self.world.fail(format!("process {} turns in circles", self.process));
        }
        let mut fuse = lock(&self.fuse);
        let Some(Fuse { polls_left, misfortune }) = &mut *fuse else { return };
        if *polls_left > 0 {
            *polls_left -= 1;
            return;
        }
        let misfortune = *misfortune;
        *fuse = None;
        match misfortune {
            Misfortune::Crash => self.kill(),
            Misfortune::Stall(_) => self.stalled.store(true, Ordering::Relaxed),
        }
        // Nobody listens once the run is over.
        let _ = self.events.send(Event { process: self.process, misfortune });
    }
}

/// A task that does not go on while its process is stalled.
struct Stallable {
    task: BoxFuture<'static, ()>,
    control: Arc<Control>,
}

impl Future for Stallable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.control.is_alive() {
            return Poll::Pending;
        }
        if self.control.is_stalled() {
            lock(&self.control.wakers).push(context.waker().clone());
            return Poll::Pending;
        }
        let polled = self.task.as_mut().poll(context);
        if polled.is_pending() {
            self.control.waits();
        }
        polled
    }
}
