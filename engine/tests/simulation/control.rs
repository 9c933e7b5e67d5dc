//! Crashing and stalling a simulated process at any point where one of its tasks waits.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, JoinHandle};

use crate::world::World;

/// No process of a run that makes progress is polled more often.
const MAX_POLLS: u64 = 1_000_000;

#[derive(Debug, Clone, Copy)]
pub enum ProcessFault {
    Crash,
    Stall(Duration),
}

/// A process has crashed or stalled.
#[derive(Debug)]
pub struct FaultEvent {
    pub process: usize,
    pub fault: ProcessFault,
}

struct ScheduledFault {
    waits_left: u64,
    fault: ProcessFault,
}

pub struct Control {
    process: usize,
    world: Arc<World>,
    events: UnboundedSender<FaultEvent>,
    alive: AtomicBool,
    stalled: AtomicBool,
    polls: AtomicU64,
    scheduled: Mutex<Option<ScheduledFault>>,
    /// Wakers of tasks that became ready during a stall.
    wakers: Mutex<Vec<Waker>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Control {
    pub fn new(process: usize, world: Arc<World>, events: UnboundedSender<FaultEvent>) -> Self {
        Self {
            process,
            world,
            events,
            alive: AtomicBool::new(true),
            stalled: AtomicBool::new(false),
            polls: AtomicU64::new(0),
            scheduled: Mutex::default(),
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

    /// Spawns a task of this process.
    pub fn spawn(
        self: &Arc<Self>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let control = Arc::clone(self);
        let task = AssertUnwindSafe(task).catch_unwind().map(move |ended| {
            if ended.is_err() {
                control.world.fail(format!("process {} panicked", control.process));
            }
        });
        let task = tokio::spawn(Stallable { task: Box::pin(task), control: Arc::clone(self) });
        self.tasks.lock().push(task.abort_handle());
        task
    }

    /// Schedules a fault for when the process's tasks have waited this many times more.
    pub fn schedule_fault(&self, waits_left: u64, fault: ProcessFault) {
        *self.scheduled.lock() = Some(ScheduledFault { waits_left, fault });
    }

    pub fn cancel_fault(&self) {
        *self.scheduled.lock() = None;
    }

    /// Aborts every task where it waits now.
    pub fn kill(&self) {
        self.alive.store(false, Ordering::Relaxed);
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }

    /// Resumes a stalled process.
    pub fn resume(&self) {
        self.stalled.store(false, Ordering::Relaxed);
        self.wakers.lock().drain(..).for_each(Waker::wake);
    }

    /// Counts that a task waits, and triggers the scheduled fault when it is due.
    fn task_waits(&self) {
        if self.polls.fetch_add(1, Ordering::Relaxed) == MAX_POLLS {
            self.world.fail(format!("process {} makes no progress", self.process));
        }
        let mut scheduled = self.scheduled.lock();
        let Some(ScheduledFault { waits_left, fault }) = &mut *scheduled else { return };
        if *waits_left > 0 {
            *waits_left -= 1;
            return;
        }
        let fault = *fault;
        *scheduled = None;
        match fault {
            ProcessFault::Crash => self.kill(),
            ProcessFault::Stall(_) => self.stalled.store(true, Ordering::Relaxed),
        }
        // Fails only after the run has ended.
        let _ = self.events.send(FaultEvent { process: self.process, fault });
    }
}

/// A task that is not polled while its process is stalled.
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
            self.control.wakers.lock().push(context.waker().clone());
            return Poll::Pending;
        }
        let polled = self.task.as_mut().poll(context);
        if polled.is_pending() {
            self.control.task_waits();
        }
        polled
    }
}
