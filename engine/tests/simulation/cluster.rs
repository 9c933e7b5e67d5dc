//! The processes, and the consumer group that assigns the partitions to them. The group can be wrong: two processes may
//! both own a partition for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemas::PartitionId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{sleep, timeout};

use crate::control::{Control, FaultEvent, ProcessFault};
use crate::process::{Process, Servers};
use crate::world::World;

/// Time for a release, after which the partition is moved anyway.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

pub struct Cluster {
    pub world: Arc<World>,
    pub servers: Arc<Servers>,
    /// Time after which the group notices that a member is gone.
    session_timeout: Duration,
    events: UnboundedSender<FaultEvent>,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    /// Including dead ones, so that a number always means the same process.
    processes: Vec<Arc<Process>>,
    assigned: BTreeMap<PartitionId, usize>,
}

impl Cluster {
    /// Starts the processes and assigns the partitions.
    pub fn start(servers: Arc<Servers>, events: UnboundedSender<FaultEvent>) -> Arc<Self> {
        let world = Arc::clone(&servers.world);
        let session_timeout = world.draw_ms(20..=400);
        let members = Mutex::default();
        let cluster = Arc::new(Self { world, servers, session_timeout, events, members });
        for _ in 0..cluster.world.plan.processes {
            cluster.start_process();
        }
        cluster.world.log.count.partitions().for_each(|partition| cluster.assign(partition));
        cluster
    }

    pub fn start_process(&self) {
        let mut members = self.members.lock();
        let number = members.processes.len();
        let control = Control::new(number, Arc::clone(&self.world), self.events.clone());
        let servers = Arc::clone(&self.servers);
        members.processes.push(Process::start(servers, Arc::new(control), number));
    }

    pub fn is_assigned(&self, partition: PartitionId, process: usize) -> bool {
        self.members.lock().assigned.get(&partition) == Some(&process)
    }

    /// Returns the processes that are alive.
    pub fn alive(&self) -> Vec<Arc<Process>> {
        let members = self.members.lock();
        members.processes.iter().filter(|process| process.control.is_alive()).cloned().collect()
    }

    /// Draws a live process, one that is not stalled if possible. Starts one if all are dead.
    pub fn any_alive(&self) -> Arc<Process> {
        if self.alive().is_empty() {
            self.start_process();
        }
        let alive = self.alive();
        let running = alive.iter().filter(|process| !process.control.is_stalled());
        let choice: Vec<_> = running.cloned().collect();
        let choice = if choice.is_empty() { alive } else { choice };
        Arc::clone(&choice[self.world.draw(|rng| rng.usize(0..choice.len()))])
    }

    /// Assigns a partition to any process, even if another one still owns it.
    pub fn assign(&self, partition: PartitionId) {
        let process = self.any_alive();
        self.world.note(format_args!("{partition}: assigned to process {}", process.number));
        self.members.lock().assigned.insert(partition, process.number);
        process.assign(partition);
    }

    /// Revokes a partition, waits until its process has released it, and assigns it again.
    pub async fn move_with_release(self: &Arc<Self>, partition: PartitionId) {
        let former = {
            let mut members = self.members.lock();
            let former = members.assigned.remove(&partition);
            former.map(|number| Arc::clone(&members.processes[number]))
        };
        let Some(former) = former else { return };
        self.world.note(format_args!("{partition}: revoked from process {}", former.number));
        former.revoke(partition);
        let released = async {
            while former.holds(partition) && former.control.is_alive() {
                sleep(POLL_INTERVAL).await;
            }
        };
        // The group does not wait for a member that is too slow.
        let _ = timeout(RELEASE_TIMEOUT, released).await;
        self.assign(partition);
    }

    /// Assigns a partition again at once; the former process is notified later, if at all.
    pub async fn move_without_release(self: &Arc<Self>, partition: PartitionId) {
        let former = self.members.lock().assigned.get(&partition).copied();
        self.assign(partition);
        sleep(self.world.draw_ms(0..=400)).await;
        if let Some(former) = former {
            self.notify_lost_partitions(former);
        }
    }

    /// Releases every partition of a process, then ends it.
    pub async fn stop_cleanly(self: &Arc<Self>, process: &Arc<Process>) {
        self.world.note(format_args!("process {} stops", process.number));
        self.start_process();
        for partition in self.partitions_of(process.number) {
            self.move_with_release(partition).await;
        }
        // Sometimes it is killed while it hands over.
        if self.world.chance(70) {
            let _ = timeout(RELEASE_TIMEOUT, process.handed_over()).await;
        }
        process.stop_publishing();
        sleep(self.world.draw_ms(1..=50)).await;
        process.control.kill();
        // It may have been assigned partitions again meanwhile.
        self.reassign_from(process.number);
    }

    pub fn crash(self: &Arc<Self>, process: &Arc<Process>) {
        process.control.kill();
        self.replace_process(process.number);
    }

    /// Handles the faults of processes.
    pub async fn handle_faults(self: &Arc<Self>, mut events: UnboundedReceiver<FaultEvent>) {
        while let Some(FaultEvent { process, fault }) = events.recv().await {
            self.world.note(format_args!("process {process}: {fault:?}"));
            match fault {
                ProcessFault::Crash => {
                    self.world.count(|counts| counts.crashes += 1);
                    self.replace_process(process);
                }
                ProcessFault::Stall(duration) => {
                    self.world.count(|counts| counts.stalls += 1);
                    let cluster = Arc::clone(self);
                    tokio::spawn(async move { cluster.end_stall(process, duration).await });
                }
            }
        }
    }

    /// Starts another process; after the session timeout the group reassigns the dead one's partitions.
    fn replace_process(self: &Arc<Self>, dead: usize) {
        self.start_process();
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            sleep(cluster.session_timeout).await;
            cluster.reassign_from(dead);
        });
    }

    /// Resumes a process after its stall.
    ///
    /// If the stall exceeds the session timeout, the group reassigns the partitions. The process is notified some time
    /// after it resumes, or finds out by being fenced.
    async fn end_stall(self: &Arc<Self>, number: usize, duration: Duration) {
        let noticed = duration > self.session_timeout;
        sleep(duration.min(self.session_timeout)).await;
        if noticed {
            if self.alive().iter().all(|process| process.control.is_stalled()) {
                self.start_process();
            }
            self.reassign_from(number);
            sleep(duration - self.session_timeout).await;
        }
        self.world.note(format_args!("process {number} resumes"));
        self.process(number).control.resume();
        if noticed && self.world.chance(50) {
            sleep(self.world.draw_ms(0..=300)).await;
            self.notify_lost_partitions(number);
        }
    }

    fn reassign_from(self: &Arc<Self>, number: usize) {
        for partition in self.partitions_of(number) {
            self.assign(partition);
        }
    }

    /// Notifies a process of the partitions that are no longer assigned to it.
    fn notify_lost_partitions(&self, number: usize) {
        let process = self.process(number);
        if !process.control.is_alive() || process.control.is_stalled() {
            return;
        }
        for partition in self.world.log.count.partitions() {
            if !self.is_assigned(partition, number) {
                process.lose(partition);
            }
        }
    }

    fn partitions_of(&self, number: usize) -> Vec<PartitionId> {
        let members = self.members.lock();
        let assigned = members.assigned.iter();
        assigned.filter(|(_, owner)| **owner == number).map(|(partition, _)| *partition).collect()
    }

    fn process(&self, number: usize) -> Arc<Process> {
        Arc::clone(&self.members.lock().processes[number])
    }
}
