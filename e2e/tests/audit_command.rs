//! `processor audit` and `allocator audit`, beside processes at work: no false alarm, and what is false is named.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::embedded::Embedded;
use e2e::load::Crowd;
use e2e::operator::{Operator, ended};
use e2e::scenario::{new_dir, scenario, scenario_within};
use e2e::stack::{Stack, StackBuilder};

const BUDGET: &str = "audited";
const CATEGORIES: usize = 10;
const BOUND: Duration = Duration::from_secs(60);

/// One audit.
struct Audit {
    operator: Operator,
    apis: Vec<String>,
}

impl Audit {
    fn of(stack: &Stack) -> Result<Self> {
        let apis = stack.apis.iter().map(|api| api.url.clone()).collect();
        Ok(Self { operator: Operator::of_stack(stack)?, apis })
    }

    /// Runs it; its exit code, and what it says on paper and as metrics.
    async fn run(&self) -> Result<(Option<i32>, String)> {
        let metrics = new_dir("audit")?.join("audit.prom").display().to_string();
        let mut command = vec!["audit", "--metrics-file", &metrics];
        command.extend(self.apis.iter().flat_map(|api| ["--api", api.as_str()]));
        let (code, said) = ended(self.operator.start(&command)?, BOUND).await?;
        Ok((code, said + &fs::read_to_string(&metrics)?))
    }

    /// Runs it; everything must be compared, in so many places, and agree.
    async fn agrees(&self, places: usize) -> Result<()> {
        let (code, said) = self.run().await?;
        ensure!(code == Some(0), "ended with {code:?}: {said}");
        ensure!(said.contains(" differences=0 unchecked=0 compared="), "{said}");
        ensure!(said.contains("\nallocator_audit_clean 1\n"), "{said}");
        let (_, compared) = said.split_once("compared=").context("no places")?;
        let compared = compared.lines().next().unwrap_or_default();
        ensure!(compared.split("; ").count() == places, "compared were {compared}");
        Ok(())
    }
}

#[test]
fn an_audit_agrees_beside_busy_and_dying_processors_and_names_what_is_false() {
    scenario_within(Duration::from_secs(180), async || {
        let builder = StackBuilder { processors: 2, apis: 2, ..Stack::builder() };
        let mut stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&stack.system);
        load.goes_on_for(300).await?;
        let audit = Audit::of(&stack)?;
        audit.agrees(5).await?;
        stack.processors.remove(0).process.kill()?;
        audit.agrees(5).await?;
        stack.all_owned().await?;
        load.goes_on_for(50).await?;
        audit.agrees(5).await?;

        let ledger = load.stop().await?;
        ledger.is_counted(&stack, BUDGET, CATEGORIES).await?;
        stack.tables().await?.exchange_categories(BUDGET, 2).await?;
        let (code, said) = audit.run().await?;
        ensure!(code == Some(1), "ended with {code:?}: {said}");
        for category in 0..2 {
            let what = format!(
                "the store's totals, partition 2, budget `{BUDGET}`, category {category}: basis points: "
            );
            ensure!(said.contains(&what), "{said}");
            let labels = format!(
                r#"{{place="totals",partition="2",budget="{BUDGET}",category="{category}"}}"#
            );
            ensure!(said.contains(&format!("allocator_audit_differences{labels} ")), "{said}");
        }
        ensure!(!said.contains("category 2:") && !said.contains("partition 1"), "{said}");
        ensure!(said.contains("\nallocator_audit_clean 0\n"), "{said}");
        Ok(())
    });
}

#[test]
fn the_embedded_default_is_audited_while_it_runs() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        embedded.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::of(BUDGET, CATEGORIES).start(&embedded.system);
        load.goes_on_for(300).await?;
        let apis = vec![embedded.service.url.clone()];
        let audit = Audit { operator: Operator::of_embedded(&embedded), apis };
        for _ in 0..3 {
            audit.agrees(3).await?;
            load.goes_on_for(50).await?;
        }
        load.stop().await.map(drop)
    });
}

#[test]
fn an_audit_of_nothing_says_so_and_creates_nothing() {
    scenario(async || {
        let dir = new_dir("nothing")?.join("data");
        let audit = Audit { operator: Operator::of_data(&dir), apis: Vec::new() };
        let (code, said) = audit.run().await?;
        ensure!(code == Some(2) && said.contains("store.db"), "ended with {code:?}: {said}");
        ensure!(!dir.exists(), "something was made");
        ensure!(said.contains("\nallocator_audit_clean 0\n"), "{said}");
        Ok(())
    });
}
