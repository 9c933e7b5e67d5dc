//! Injects the faults of a plan, checks that each took effect, and ends it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::clock::Clocks;
use super::fault::{Fault, Kind, SESSION_TIMEOUT, Target};
use super::links::Links;
use super::plan::{Plan, Step};
use super::redis_faults;
use super::workload::Workload;
use crate::own_servers::OwnServers;
use crate::process::Signal;
use crate::service::Service;
use crate::stack::Stack;
use crate::wait::eventually;

/// Timeout for the graceful exit of a service while a server is down.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout for a fault to take effect.
const EFFECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval between the actions of a rebalance storm.
const STORM_INTERVAL: Duration = Duration::from_secs(2);

/// Injects faults into a stack.
pub struct Nemesis<'a> {
    /// The stack under test.
    pub stack: &'a mut Stack,
    /// The servers.
    pub own: &'static OwnServers,
    /// The proxies of all links.
    pub links: &'a Links,
    /// The clocks.
    pub clocks: &'a Clocks,
    /// Number of injections of each fault.
    pub injected: BTreeMap<&'static str, u32>,
    /// Services that exited unexpectedly.
    pub exits: Vec<String>,
    /// When the last fault ended.
    pub last_fault_ended: Instant,
}

impl Nemesis<'_> {
    /// Runs all steps of a plan under load.
    ///
    /// # Errors
    /// When a fault does not take effect, or submissions are not acknowledged between the steps.
    pub async fn run(&mut self, plan: &Plan, workload: &Workload) -> Result<()> {
        for step in &plan.steps {
            self.step(step).await.with_context(|| format!("in {step:?}"))?;
            self.last_fault_ended = Instant::now();
            self.exits.extend(unexpected_exits(self.stack.services())?);
            workload
                .wait_for_acknowledgements(step.acknowledged_after)
                .await
                .with_context(|| format!("after {step:?}"))?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        let mut active = Vec::new();
        for fault in &step.faults {
            active.push((*fault, self.begin(*fault).await.with_context(|| format!("{fault:?}"))?));
        }
        sleep(step.hold).await;
        // Faults that took effect end first: another fault may be waiting for them.
        active.sort_by_key(|(fault, before)| !self.has_effect(*fault, *before));
        for (fault, before) in active {
            self.end(fault, before).await.with_context(|| format!("{fault:?}"))?;
            *self.injected.entry(fault.name()).or_default() += 1;
        }
        Ok(())
    }

    /// Starts a fault, or runs all of it if it takes its own time. Returns the state before it.
    async fn begin(&mut self, fault: Fault) -> Result<Before> {
        let before = Before { at: Instant::now(), affected: self.affected(fault)? };
        match fault {
            Fault::Kill(target) => self.service(target)?.process.kill()?,
            Fault::Terminate(target) => terminate_when_ready(self.service(target)?).await?,
            Fault::Roll => self.roll().await?,
            Fault::Pause(processor) => self.pause(processor).await?,
            Fault::Stall(target) => self.service(target)?.process.signal(Signal::Stop)?,
            Fault::Storm(actions) => self.storm(actions).await?,
            Fault::KillServer(server) => {
                let own = self.own;
                blocking(move || own.kill(server)).await?;
            }
            Fault::TerminateServer(server) => {
                let own = self.own;
                blocking(move || own.terminate(server)).await?;
            }
            Fault::KillRedis => self.stack.redis.kill()?,
            Fault::TerminateRedis => self.stack.redis.terminate(TERMINATE_TIMEOUT).await?,
            Fault::Net(fault, link) => self.links.proxy(link)?.set(Some(fault)),
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
            Fault::Kill(target) | Fault::Terminate(target) => self.slot(target)?.respawn()?,
            Fault::Stall(target) => {
                self.service(target)?.process.signal(Signal::Continue)?;
                let suspended = before.at.elapsed();
                ensure!(
                    suspended < SESSION_TIMEOUT,
                    "suspended for {suspended:?}, longer than the session timeout"
                );
            }
            Fault::KillServer(_) | Fault::TerminateServer(_) => {
                let own = self.own;
                blocking(move || own.start_missing()).await?;
            }
            Fault::KillRedis | Fault::TerminateRedis => self.stack.redis.restart()?,
            Fault::Net(_, link) => {
                let proxy = self.links.proxy(link)?;
                eventually("the network fault takes effect", EFFECT_TIMEOUT, async || {
                    ensure!(proxy.affected() > before.affected, "no traffic passed");
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

    /// Whether a fault has taken effect. A network fault does with the first traffic.
    fn has_effect(&self, fault: Fault, before: Before) -> bool {
        match fault {
            Fault::Net(_, link) => {
                self.links.proxy(link).is_ok_and(|proxy| proxy.affected() > before.affected)
            }
            _ => true,
        }
    }

    fn affected(&self, fault: Fault) -> Result<u64> {
        match fault {
            Fault::Net(_, link) => Ok(self.links.proxy(link)?.affected()),
            _ => Ok(0),
        }
    }

    /// The service, restarted if it had exited unexpectedly.
    fn service(&mut self, target: Target) -> Result<&mut Service> {
        let exits = unexpected_exits([self.slot(target)?])?;
        self.exits.extend(exits);
        self.slot(target)
    }

    fn slot(&mut self, (kind, which): Target) -> Result<&mut Service> {
        let all = match kind {
            Kind::Ingest => &mut self.stack.ingests,
            Kind::Processor => &mut self.stack.processors,
            Kind::Api => &mut self.stack.apis,
        };
        all.get_mut(which).with_context(|| format!("no {kind:?} {which}"))
    }

    /// Restarts all services gracefully, one after the other.
    async fn roll(&mut self) -> Result<()> {
        for service in self.stack.services() {
            terminate_when_ready(service).await?;
            service.restart().await?;
        }
        Ok(())
    }

    /// Suspends a processor until the others own its partitions. It resumes as a zombie.
    async fn pause(&mut self, processor: usize) -> Result<()> {
        // The suspended processor must own partitions to become a zombie.
        self.stack.wait_until_owned(|owned| owned.iter().all(|owned| *owned > 0)).await?;
        let zombie = self.stack.processors.remove(processor);
        zombie.process.signal(Signal::Stop)?;
        let taken_over = self.stack.wait_until_all_owned().await;
        zombie.process.signal(Signal::Continue)?;
        self.stack.processors.insert(processor, zombie);
        taken_over.context("no processor took over")
    }

    /// Runs a rebalance storm: processors join, are killed, and leave gracefully in turn.
    async fn storm(&mut self, actions: u32) -> Result<()> {
        let initial = self.stack.processors.len();
        let mut ticks = interval(STORM_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for action in 0..actions {
            ticks.tick().await;
            match action % 4 {
                0 | 1 => self.stack.start_processor()?,
                2 => self.kill_last_processor()?,
                _ => self.stop_last_processor().await?,
            }
        }
        while self.stack.processors.len() > initial {
            ticks.tick().await;
            self.stop_last_processor().await?;
        }
        Ok(())
    }

    /// Terminates the processor that joined last.
    async fn stop_last_processor(&mut self) -> Result<()> {
        terminate_when_ready(&mut self.stack.processors.pop().context("no processor to stop")?)
            .await
    }

    /// Kills the processor that joined last.
    fn kill_last_processor(&mut self) -> Result<()> {
        let mut last = self.stack.processors.pop().context("no processor to kill")?;
        self.exits.extend(unexpected_exits([&mut last])?);
        last.process.kill()
    }
}

/// Restarts services that exited unexpectedly and names them. The failed run still gets its verdict.
///
/// # Errors
/// When a service cannot be started.
pub fn unexpected_exits<'a>(
    services: impl IntoIterator<Item = &'a mut Service>,
) -> Result<Vec<String>> {
    let mut exits = Vec::new();
    for service in services {
        if let Some(status) = service.process.exit_status()? {
            exits.push(format!("{} exited unexpectedly: {status}", service.name()));
            service.respawn()?;
        }
    }
    Ok(exits)
}

/// Waits until a service is ready and terminates it. Before that, it need not exit with code 0.
async fn terminate_when_ready(service: &mut Service) -> Result<()> {
    service.ready().await?;
    service.terminate(TERMINATE_TIMEOUT).await
}

/// The state before a fault.
#[derive(Debug, Clone, Copy)]
struct Before {
    at: Instant,
    affected: u64,
}

pub(super) async fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(work).await?
}
