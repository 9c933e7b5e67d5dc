//! Does what the plan says, makes sure that each fault really came about, and ends it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::clock::Clocks;
use super::fault::{Fault, Kind, SESSION, Victim};
use super::links::Links;
use super::plan::{Plan, Step};
use super::redis_faults;
use super::workload::Workload;
use crate::own_servers::OwnServers;
use crate::process::Signal;
use crate::service::Service;
use crate::stack::Stack;
use crate::wait::eventually;

/// How long a service may take to end in good order, with a server away.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// How long somebody may take to feel a fault, or another to take over.
const FELT: Duration = Duration::from_secs(20);
/// A member joins or leaves as often.
const STORM_BEAT: Duration = Duration::from_secs(2);

/// Who does it.
pub struct Nemesis<'a> {
    /// Whom it is done to.
    pub stack: &'a mut Stack,
    /// The servers.
    pub own: &'static OwnServers,
    /// The network.
    pub links: &'a Links,
    /// The clocks.
    pub clocks: &'a Clocks,
    /// How often each fault came about.
    pub done: BTreeMap<&'static str, u32>,
    /// Who has ended though nobody asked for it.
    pub exits: Vec<String>,
    /// Since when no fault is there.
    pub peace_since: Instant,
}

impl Nemesis<'_> {
    /// Does everything, one step after the other, while people go on.
    ///
    /// # Errors
    /// When a fault does not come about, or people are not heard any more.
    pub async fn run(&mut self, plan: &Plan, workload: &Workload) -> Result<()> {
        for step in &plan.steps {
            self.step(step).await.with_context(|| format!("in {step:?}"))?;
            self.peace_since = Instant::now();
            self.exits.extend(unasked_exits(self.stack.services())?);
            workload
                .goes_on_for(step.acknowledged_after)
                .await
                .with_context(|| format!("after {step:?}"))?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        let mut begun = Vec::new();
        for fault in &step.faults {
            begun.push((*fault, self.begin(*fault).await.with_context(|| format!("{fault:?}"))?));
        }
        sleep(step.hold).await;
        // One that is still to be felt may wait for what another one keeps from happening.
        begun.sort_by_key(|(fault, before)| !self.is_felt(*fault, *before));
        for (fault, before) in begun {
            self.end(fault, before).await.with_context(|| format!("{fault:?}"))?;
            *self.done.entry(fault.name()).or_default() += 1;
        }
        Ok(())
    }

    /// Begins a fault, or does it whole if it takes its own time. Gives what its end has to compare with.
    async fn begin(&mut self, fault: Fault) -> Result<Before> {
        let before = Before { at: Instant::now(), harm: self.harm(fault)? };
        match fault {
            Fault::Kill(victim) => self.service(victim)?.process.kill()?,
            Fault::Terminate(victim) => ends_well(self.service(victim)?).await?,
            Fault::Roll => self.roll().await?,
            Fault::Pause(processor) => self.pause(processor).await?,
            Fault::Stall(victim) => self.service(victim)?.process.signal(Signal::Stop)?,
            Fault::Storm(beats) => self.storm(beats).await?,
            Fault::KillServer(server) => {
                let own = self.own;
                blocking(move || own.kill(server)).await?;
            }
            Fault::TerminateServer(server) => {
                let own = self.own;
                blocking(move || own.terminate(server)).await?;
            }
            Fault::KillRedis => self.stack.redis.kill()?,
            Fault::TerminateRedis => self.stack.redis.terminate(END_PATIENCE).await?,
            Fault::Net(trouble, link) => self.links.proxy(link)?.set(Some(trouble)),
            Fault::Redis(fault) => redis_faults::begin(&self.stack.redis.url(), fault).await?,
            Fault::Clock(kind, seconds) => {
                let clocks = self.clocks;
                clocks.set(kind, self.service((kind, 1))?, seconds).await?;
            }
        }
        Ok(before)
    }

    async fn end(&mut self, fault: Fault, before: Before) -> Result<()> {
        match fault {
            Fault::Kill(victim) | Fault::Terminate(victim) => self.slot(victim)?.start_again()?,
            Fault::Stall(victim) => {
                self.service(victim)?.process.signal(Signal::Continue)?;
                let stood = before.at.elapsed();
                ensure!(stood < SESSION, "it stood still for {stood:?}: that is no stall");
            }
            Fault::KillServer(_) | Fault::TerminateServer(_) => {
                let own = self.own;
                blocking(move || own.start_missing()).await?;
            }
            Fault::KillRedis | Fault::TerminateRedis => self.stack.redis.restart()?,
            Fault::Net(_, link) => {
                let proxy = self.links.proxy(link)?;
                eventually("trouble is felt", FELT, async || {
                    ensure!(proxy.harm() > before.harm, "nothing passed");
                    Ok(())
                })
                .await?;
                proxy.set(None);
            }
            Fault::Redis(fault) => redis_faults::end(&self.stack.redis.url(), fault).await?,
            Fault::Clock(kind, _) => {
                let clocks = self.clocks;
                clocks.set(kind, self.service((kind, 1))?, 0).await?;
            }
            Fault::Roll | Fault::Pause(_) | Fault::Storm(_) => {}
        }
        Ok(())
    }

    /// Whether a fault has come about; those of the network do once something passes.
    fn is_felt(&self, fault: Fault, before: Before) -> bool {
        match fault {
            Fault::Net(_, link) => {
                self.links.proxy(link).is_ok_and(|proxy| proxy.harm() > before.harm)
            }
            _ => true,
        }
    }

    fn harm(&self, fault: Fault) -> Result<u64> {
        match fault {
            Fault::Net(_, link) => Ok(self.links.proxy(link)?.harm()),
            _ => Ok(0),
        }
    }

    /// A service that runs.
    fn service(&mut self, victim: Victim) -> Result<&mut Service> {
        let exits = unasked_exits([self.slot(victim)?])?;
        self.exits.extend(exits);
        self.slot(victim)
    }

    fn slot(&mut self, (kind, which): Victim) -> Result<&mut Service> {
        let all = match kind {
            Kind::Ingest => &mut self.stack.ingests,
            Kind::Processor => &mut self.stack.processors,
            Kind::Api => &mut self.stack.apis,
        };
        all.get_mut(which).with_context(|| format!("no {kind:?} {which}"))
    }

    /// Everything is ended in good order and started again, one after the other, each once the one before is ready.
    async fn roll(&mut self) -> Result<()> {
        for service in self.stack.services() {
            ends_well(service).await?;
            service.restart().await?;
        }
        Ok(())
    }

    /// Stands still until the others have everything; then it goes on, and does not know.
    async fn pause(&mut self, processor: usize) -> Result<()> {
        // A zombie is one that owned something.
        self.stack.owned_so(|owned| owned.iter().all(|owned| *owned > 0)).await?;
        let zombie = self.stack.processors.remove(processor);
        zombie.process.signal(Signal::Stop)?;
        let taken_over = self.stack.all_owned().await;
        zombie.process.signal(Signal::Continue)?;
        self.stack.processors.insert(processor, zombie);
        taken_over.context("nobody took over")
    }

    /// Processors join and leave in turn; those that joined are killed as often as they are asked to leave.
    async fn storm(&mut self, beats: u32) -> Result<()> {
        let settled = self.stack.processors.len();
        let mut beat = interval(STORM_BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0..beats {
            beat.tick().await;
            match number % 4 {
                0 | 1 => self.stack.start_processor()?,
                2 => self.crashes()?,
                _ => self.leaves().await?,
            }
        }
        while self.stack.processors.len() > settled {
            beat.tick().await;
            self.leaves().await?;
        }
        Ok(())
    }

    /// The one that came last is asked to leave.
    async fn leaves(&mut self) -> Result<()> {
        ends_well(&mut self.stack.processors.pop().context("no processor to leave")?).await
    }

    /// The one that came last is killed.
    fn crashes(&mut self) -> Result<()> {
        let mut last = self.stack.processors.pop().context("no processor to kill")?;
        self.exits.extend(unasked_exits([&mut last])?);
        last.process.kill()
    }
}

/// Who has ended though nobody asked for it. They are started again: the run has failed, and goes on to its verdict.
///
/// # Errors
/// When one cannot be started.
pub fn unasked_exits<'a>(
    services: impl IntoIterator<Item = &'a mut Service>,
) -> Result<Vec<String>> {
    let mut exits = Vec::new();
    for service in services {
        if let Some(status) = service.process.ended()? {
            exits.push(format!("{} ended unasked: {status}", service.name()));
            service.start_again()?;
        }
    }
    Ok(exits)
}

/// Asks a service to end once it has begun: one that is told to end before that need not end well.
async fn ends_well(service: &mut Service) -> Result<()> {
    service.ready().await?;
    service.terminate(END_PATIENCE).await
}

/// How things were before a fault.
#[derive(Debug, Clone, Copy)]
struct Before {
    at: Instant,
    harm: u64,
}

async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(work).await?
}
