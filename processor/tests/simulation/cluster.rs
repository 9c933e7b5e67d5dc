//! The processes and the group that shares the partitions among them. The group can be wrong: for a while two processes
//! may both believe to own one partition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use schemas::PartitionId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::{sleep, timeout};

use crate::control::{Control, Event, Misfortune};
use crate::process::{Process, Servers};
use crate::world::{World, lock};

/// How long a release may take before the partition goes elsewhere without its last commit.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);
const POLL_PAUSE: Duration = Duration::from_millis(1);

pub struct Cluster {
    pub world: Arc<World>,
    pub servers: Arc<Servers>,
    /// The group notices the loss of a member after this.
    session_timeout: Duration,
    events: UnboundedSender<Event>,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    /// Those that are gone as well, so that a number stays one process.
    processes: Vec<Arc<Process>>,
    assigned: BTreeMap<PartitionId, usize>,
}

impl Cluster {
    /// Starts the processes and shares the partitions out.
    pub fn start(servers: Arc<Servers>, events: UnboundedSender<Event>) -> Arc<Self> {
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
        let mut members = lock(&self.members);
        let number = members.processes.len();
        let control = Control::new(number, Arc::clone(&self.world), self.events.clone());
        let servers = Arc::clone(&self.servers);
        members.processes.push(Process::start(servers, Arc::new(control), number));
    }

    pub fn is_assigned(&self, partition: PartitionId, process: usize) -> bool {
        lock(&self.members).assigned.get(&partition) == Some(&process)
    }

    /// The processes that are alive.
    pub fn alive(&self) -> Vec<Arc<Process>> {
        let members = lock(&self.members);
        members.processes.iter().filter(|process| process.control.is_alive()).cloned().collect()
    }

    /// One of the living; one that goes on, if there is any.
    pub fn any_alive(&self) -> Arc<Process> {
        if self.alive().is_empty() {
            self.start_process();
        }
        let alive = self.alive();
        let going = alive.iter().filter(|process| !process.control.is_stalled());
        let choice: Vec<_> = going.cloned().collect();
        let choice = if choice.is_empty() { alive } else { choice };
        Arc::clone(&choice[self.world.draw(|rng| rng.usize(0..choice.len()))])
    }

    /// Gives a partition to any process, whatever another one believes.
    pub fn assign(self: &Arc<Self>, partition: PartitionId) {
        let process = self.any_alive();
        self.world.note(format_args!("{partition}: assigned to process {}", process.number));
        lock(&self.members).assigned.insert(partition, process.number);
        if !process.owns(partition) {
            process.own(self, partition);
        }
    }

    /// Takes a partition from its process, waits until it has let go, and gives it to another.
    pub async fn move_cleanly(self: &Arc<Self>, partition: PartitionId) {
        let former = {
            let mut members = lock(&self.members);
            let former = members.assigned.remove(&partition);
            former.map(|number| Arc::clone(&members.processes[number]))
        };
        let Some(former) = former else { return };
        self.world.note(format_args!("{partition}: revoked from process {}", former.number));
        former.release(partition);
        let let_go = async {
            while former.owns(partition) && former.control.is_alive() {
                sleep(POLL_PAUSE).await;
            }
        };
        if timeout(RELEASE_PATIENCE, let_go).await.is_err() && !former.control.is_stalled() {
            former.lose(partition);
        }
        self.assign(partition);
    }

    /// Gives a partition to another process at once; the former one hears of it later, if at all.
    pub async fn move_rudely(self: &Arc<Self>, partition: PartitionId) {
        let former = lock(&self.members).assigned.get(&partition).copied();
        self.assign(partition);
        sleep(self.world.draw_ms(0..=400)).await;
        if let Some(former) = former {
            self.tell_of_losses(former);
        }
    }

    /// Lets go of everything, then ends.
    pub async fn stop_cleanly(self: &Arc<Self>, process: &Arc<Process>) {
        self.world.note(format_args!("process {} stops", process.number));
        self.start_process();
        for partition in self.partitions_of(process.number) {
            self.move_cleanly(partition).await;
        }
        process.stop_publishing();
        sleep(self.world.draw_ms(1..=50)).await;
        process.control.kill();
        // It may have got partitions again meanwhile.
        self.reassign_from(process.number);
    }

    pub fn crash(self: &Arc<Self>, process: &Arc<Process>) {
        process.control.kill();
        self.heir_of(process.number);
    }

    /// What follows the misfortunes of processes.
    pub async fn follow(self: &Arc<Self>, mut events: UnboundedReceiver<Event>) {
        while let Some(Event { process, misfortune }) = events.recv().await {
            self.world.note(format_args!("process {process}: {misfortune:?}"));
            match misfortune {
                Misfortune::Crash => {
                    self.world.count(|counts| counts.crashes += 1);
                    self.heir_of(process);
                }
                Misfortune::Stall(duration) => {
                    self.world.count(|counts| counts.stalls += 1);
                    let cluster = Arc::clone(self);
                    tokio::spawn(async move { cluster.sit_out(process, duration).await });
                }
            }
        }
    }

    /// Another process starts, and the group gives it or others what the dead one had.
    fn heir_of(self: &Arc<Self>, dead: usize) {
        self.start_process();
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            sleep(cluster.session_timeout).await;
            cluster.reassign_from(dead);
        });
    }

    /// A stall: beyond the session timeout the group gives the partitions away, and the process hears of that only
    /// some time after it goes on, or finds out by itself.
    async fn sit_out(self: &Arc<Self>, number: usize, duration: Duration) {
        let noticed = duration > self.session_timeout;
        sleep(duration.min(self.session_timeout)).await;
        if noticed {
            if self.alive().iter().all(|process| process.control.is_stalled()) {
                self.start_process();
            }
            self.reassign_from(number);
            sleep(duration - self.session_timeout).await;
        }
        self.world.note(format_args!("process {number} goes on"));
        self.process(number).control.resume();
        if noticed && self.world.chance(50) {
            sleep(self.world.draw_ms(0..=300)).await;
            self.tell_of_losses(number);
        }
    }

    fn reassign_from(self: &Arc<Self>, number: usize) {
        for partition in self.partitions_of(number) {
            self.assign(partition);
        }
    }

    /// The group tells a process which partitions it no longer has.
    fn tell_of_losses(&self, number: usize) {
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
        let members = lock(&self.members);
        let assigned = members.assigned.iter();
        assigned.filter(|(_, owner)| **owner == number).map(|(partition, _)| *partition).collect()
    }

    fn process(&self, number: usize) -> Arc<Process> {
        Arc::clone(&lock(&self.members).processes[number])
    }
}
