//! Carries out the steps on a loaded stack.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::json;

use super::step::{Release, Step};
use crate::chaos::fault::Kind;
use crate::load::Load;
use crate::operator::Operator;
use crate::process::{Signal, binary, signal};
use crate::response::{HttpResponse, send};
use crate::service::Service;
use crate::stack::Stack;
use crate::system::definition;
use crate::wait::eventually;

/// Timeout for the graceful exit of a service.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for every service to follow a change, and for a refused start.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(60);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for a rebuild whose worker was terminated.
const REBUILD_TIMEOUT: Duration = Duration::from_secs(180);
/// Submissions between two steps, and between two services of a step.
const ACKNOWLEDGED_BETWEEN: u64 = 50;
const STRANGERS: usize = 20;
/// The budget whose rules change.
const RULES_BUDGET: &str = "roll-rules";
/// The budget that is deleted and defined again.
const DELETED_BUDGET: &str = "roll-deleted";
/// The budget whose definition a later release extended.
const EXTENDED_BUDGET: &str = "roll-extended";
/// A migration that no release of the drill knows.
const LATER_MIGRATION: i32 = 9_999;

/// The folders of both releases' binaries.
#[derive(Debug)]
pub struct Releases {
    previous: PathBuf,
    current: PathBuf,
}

impl Releases {
    /// Takes the current release from where all tests do.
    ///
    /// # Errors
    /// When a release is not built, or both are the same.
    pub fn new(previous: &Path) -> Result<Self> {
        let previous = previous.canonicalize().context("the previous release is not built")?;
        let current = binary("processor")?;
        let current = current.parent().context("the program has no folder")?.to_owned();
        ensure!(previous != current, "both releases are in {}", current.display());
        Ok(Self { previous, current })
    }

    /// The folder of the previous release's binaries.
    pub fn previous(&self) -> &Path {
        &self.previous
    }

    fn folder(&self, release: Release) -> &Path {
        match release {
            Release::Previous => &self.previous,
            Release::Current => &self.current,
        }
    }

    fn program(&self, kind: Kind, release: Release) -> PathBuf {
        self.folder(release).join(kind.name())
    }
}

/// The stack, and which release its services are.
pub struct Drill {
    stack: Stack,
    releases: Releases,
    /// The budget of the load.
    budget: &'static str,
    ingests: Release,
    apis: Release,
    processors: Release,
    /// Changes of rules so far.
    changes: u32,
    withdrawn: usize,
}

impl Drill {
    /// Begins with a stack of the previous release.
    pub fn new(stack: Stack, releases: Releases, budget: &'static str) -> Self {
        let previous = Release::Previous;
        Self {
            stack,
            releases,
            budget,
            ingests: previous,
            apis: previous,
            processors: previous,
            changes: 0,
            withdrawn: 0,
        }
    }

    /// The stack after the last step.
    pub fn into_stack(self) -> Stack {
        self.stack
    }

    /// Carries out a step, and waits until more submissions are accepted.
    ///
    /// # Errors
    /// When the step has another outcome than it must have.
    pub async fn carry_out(&mut self, step: &Step, load: &Load) -> Result<()> {
        match *step {
            Step::Roll(kind, release) => self.roll(kind, release, load).await?,
            Step::RebuildAcross(release) => self.rebuild_across(release).await?,
            Step::ChangeRules => self.change_rules().await?,
            Step::ExtendDefinition => self.extend_definition().await?,
            Step::DeleteBudget => self.delete_budget().await?,
            Step::CheckDeletedBudget => self.check_deleted_budget().await?,
            Step::DefineDeletedBudget => self.define_deleted_budget().await?,
            Step::WithdrawStrangers => self.withdraw_strangers().await?,
            Step::RefuseMigratedStore(kind) => self.refuse_migrated_store(kind).await?,
        }
        load.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await
    }

    async fn roll(&mut self, kind: Kind, release: Release, load: &Load) -> Result<()> {
        let program = self.releases.program(kind, release);
        for index in 0..self.services(kind).len() {
            let service = self.service(kind, index)?;
            service.terminate(TERMINATE_TIMEOUT).await?;
            service.set_program(program.clone());
            service
                .restart()
                .await
                .with_context(|| format!("{} as {release:?}", service.name()))?;
            if kind == Kind::Processor {
                self.stack.wait_until_all_owned().await?;
            }
            load.wait_for_acknowledgements(ACKNOWLEDGED_BETWEEN).await?;
        }
        match kind {
            Kind::Ingest => self.ingests = release,
            Kind::Api => self.apis = release,
            Kind::Processor => self.processors = release,
        }
        Ok(())
    }

    /// Begins a rebuild, and lets the processors of another release finish it.
    async fn rebuild_across(&mut self, release: Release) -> Result<()> {
        let before = Operator::of_release(&self.stack, self.releases.folder(self.processors))?;
        let after = Operator::of_release(&self.stack, self.releases.folder(release))?;
        // The rebuild cannot complete without the partitions of a processor that is suspended.
        let suspended = self.service(Kind::Processor, 0)?.process.pid();
        signal(suspended, Signal::Stop)?;
        let submit = ["jobs", "submit", "rebuild", "--priority", "high"];
        let submitted = before.run(&submit, COMMAND_TIMEOUT).await?;
        let job = submitted.split_whitespace().next().context("no job")?;
        let show = ["jobs", "show", job];
        eventually("the rebuild is running", FOLLOW_TIMEOUT, async || {
            let shown = before.run(&show, COMMAND_TIMEOUT).await?;
            ensure!(job_state(&shown) == Some("running"), "{shown}");
            Ok(())
        })
        .await?;
        for processor in self.stack.processors.iter_mut().skip(1) {
            processor.terminate(TERMINATE_TIMEOUT).await?;
        }
        signal(suspended, Signal::Continue)?;
        self.service(Kind::Processor, 0)?.terminate(TERMINATE_TIMEOUT).await?;
        let shown = before.run(&show, COMMAND_TIMEOUT).await?;
        ensure!(job_state(&shown) == Some("queued"), "{shown}");

        let program = self.releases.program(Kind::Processor, release);
        for processor in &mut self.stack.processors {
            processor.set_program(program.clone());
            processor.restart().await.with_context(|| format!("as {release:?}"))?;
        }
        self.processors = release;
        self.stack.wait_until_all_owned().await?;
        eventually("the rebuild has succeeded", REBUILD_TIMEOUT, async || {
            let shown = after.run(&show, COMMAND_TIMEOUT).await?;
            ensure!(job_state(&shown) == Some("succeeded"), "{shown}");
            Ok(())
        })
        .await?;
        let shown = after.run(&show, COMMAND_TIMEOUT).await?;
        ensure!(shown.contains("clean"), "{shown}");
        // Two generations are folded at once at most: the next rebuild needs the place.
        after.run(&["generations", "retire"], COMMAND_TIMEOUT).await.map(drop)
    }

    /// Sets another minimum of people at each ingest, and waits until each API shows it.
    async fn change_rules(&mut self) -> Result<()> {
        for ingest in 0..self.stack.ingests.len() {
            self.changes += 1;
            let mut rules = definition(3);
            rules["minimum_people"] = json!(self.changes);
            rules["opens_at"] = json!("2020-01-01T00:00:00Z");
            rules["closes_at"] = json!("2999-01-01T00:00:00Z");
            rules["results"] = json!("live");
            rules["identity"] = json!("optional");
            rules["categories"][0]["color"] = json!("#336699");
            rules["categories"][0]["description"] = json!(format!("change {}", self.changes));
            let put = self.write(ingest, Method::PUT, RULES_BUDGET).json(&rules);
            let put = send(put).await?;
            ensure!(matches!(put.status, 200 | 201), "PUT: {} {}", put.status, put.text());
            let changes = self.changes;
            self.each_api(RULES_BUDGET, async |response: HttpResponse| {
                let shown = response.expect(200)?.json()?;
                ensure!(shown["minimum_people"] == changes, "change {changes} is not in {shown}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Writes a definition with an unknown member into the control topic, as a later release would.
    async fn extend_definition(&mut self) -> Result<()> {
        let mut extended = definition(3);
        extended["id"] = json!(EXTENDED_BUDGET);
        extended["revision"] = json!(1);
        extended["frozen"] = json!(true);
        extended["languages"] = json!({"de": {"name": "Ein Budget"}});
        let value = serde_json::to_vec(&extended)?;
        let topic = format!("{}_budgets", self.stack.topic);
        let record = (0, EXTENDED_BUDGET.as_bytes().to_vec(), value);
        self.stack.kafka.write(&topic, vec![record]).await?;
        self.stack.system.wait_until_known(EXTENDED_BUDGET, FOLLOW_TIMEOUT).await
    }

    /// Checks that the extended definition is used, and replaced by nobody.
    async fn check_extended_definition(&self) -> Result<()> {
        for ingest in 0..self.stack.ingests.len() {
            let put = self.write(ingest, Method::PUT, EXTENDED_BUDGET).json(&definition(3));
            send(put).await?.problem(503, "unavailable")?;
        }
        self.stack.system.submit(EXTENDED_BUDGET, "somebody", &[10_000, 0, 0]).await?;
        Ok(())
    }

    async fn delete_budget(&mut self) -> Result<()> {
        self.stack.system.define(DELETED_BUDGET, 2).await?;
        send(self.write(0, Method::DELETE, DELETED_BUDGET)).await?.expect(204)?;
        Ok(())
    }

    async fn check_deleted_budget(&self) -> Result<()> {
        let expected = match self.apis {
            Release::Current => 404,
            Release::Previous => 503,
        };
        self.each_api(DELETED_BUDGET, async |response: HttpResponse| {
            response.expect(expected).map(|_| ())
        })
        .await
    }

    async fn define_deleted_budget(&mut self) -> Result<()> {
        self.check_deleted_budget().await?;
        self.check_extended_definition().await?;
        self.stack.system.define(DELETED_BUDGET, 3).await
    }

    /// Withdraws for people who have never submitted. Half of the requests name an id.
    async fn withdraw_strangers(&mut self) -> Result<()> {
        for _ in 0..STRANGERS {
            self.withdrawn += 1;
            let number = self.withdrawn;
            let path = format!("{}/submissions/stranger-{number}", self.budget);
            let mut request = self.write(number, Method::DELETE, &path);
            if number.is_multiple_of(2) {
                request = request.header("idempotency-key", format!("stranger-{number}"));
            }
            send(request).await?.expect(202)?;
        }
        Ok(())
    }

    /// Records a later migration, and starts a service of each release, which must refuse the store.
    async fn refuse_migrated_store(&mut self, kind: Kind) -> Result<()> {
        self.stack.tables().await?.record_migration(LATER_MIGRATION).await?;
        let reason = format!("its schema has migration {LATER_MIGRATION}");
        for release in [Release::Previous, Release::Current] {
            let program = self.releases.program(kind, release);
            let mut refused = self.stack.start_beside(kind.name(), program)?;
            let status = refused.process.exit(FOLLOW_TIMEOUT).await?;
            let log = refused.process.log()?;
            ensure!(!status.success() && log.contains(&reason), "{release:?}: {status}: {log}");
        }
        self.stack.tables().await?.forget_migration(LATER_MIGRATION).await
    }

    /// Waits until each API's response for a budget is as it must be.
    async fn each_api(
        &self,
        budget: &str,
        check: impl AsyncFn(HttpResponse) -> Result<()>,
    ) -> Result<()> {
        let system = &self.stack.system;
        for api in &system.reads {
            let url = format!("{api}/v1/budgets/{budget}");
            eventually(&format!("{url} is as it must be"), FOLLOW_TIMEOUT, async || {
                check(send(system.request(Method::GET, url.clone())).await?).await
            })
            .await?;
        }
        Ok(())
    }

    fn write(&self, ingest: usize, method: Method, path: &str) -> reqwest::RequestBuilder {
        let system = &self.stack.system;
        system.request(method, format!("{}/v1/budgets/{path}", system.write_to(ingest)))
    }

    fn services(&mut self, kind: Kind) -> &mut Vec<Service> {
        match kind {
            Kind::Ingest => &mut self.stack.ingests,
            Kind::Processor => &mut self.stack.processors,
            Kind::Api => &mut self.stack.apis,
        }
    }

    fn service(&mut self, kind: Kind, index: usize) -> Result<&mut Service> {
        self.services(kind).get_mut(index).with_context(|| format!("no {kind:?} {index}"))
    }
}

/// The state in the output of `jobs show`.
fn job_state(shown: &str) -> Option<&str> {
    shown.lines().find_map(|line| line.trim_start().strip_prefix("state")).map(str::trim)
}
