//! `processor audit` and `allocator audit` under load: no false alarm, and every real difference is named.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::embedded::Embedded;
use e2e::load::Crowd;
use e2e::operator::{Operator, wait_for_exit};
use e2e::scenario::{new_dir, scenario, scenario_within};
use e2e::stack::{Stack, StackBuilder};

const BUDGET: &str = "audited";
const CATEGORIES: usize = 10;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// The audit command of a deployment.
struct Audit {
    operator: Operator,
    apis: Vec<String>,
}

impl Audit {
    fn new(stack: &Stack) -> Result<Self> {
        let apis = stack.apis.iter().map(|api| api.url.clone()).collect();
        Ok(Self { operator: Operator::for_stack(stack)?, apis })
    }

    /// Runs an audit; returns its exit code, and its output with the metrics file.
    async fn run(&self) -> Result<(Option<i32>, String)> {
        let metrics = new_dir("audit")?.join("audit.prom").display().to_string();
        let mut command = vec!["audit", "--metrics-file", &metrics];
        command.extend(self.apis.iter().flat_map(|api| ["--api", api.as_str()]));
        let (code, output) = wait_for_exit(self.operator.start(&command)?, COMMAND_TIMEOUT).await?;
        Ok((code, output + &fs::read_to_string(&metrics)?))
    }

    /// Runs an audit that must compare this number of subjects without a difference.
    async fn finds_no_difference(&self, subjects: usize) -> Result<()> {
        let (code, output) = self.run().await?;
        ensure!(code == Some(0), "ended with {code:?}: {output}");
        ensure!(output.contains(" differences=0 unchecked=0 compared="), "{output}");
        ensure!(output.contains("\nallocator_audit_clean 1\n"), "{output}");
        let (_, compared) = output.split_once("compared=").context("no compared subjects")?;
        let compared = compared.lines().next().unwrap_or_default();
        ensure!(compared.split("; ").count() == subjects, "compared were {compared}");
        Ok(())
    }
}

#[test]
fn an_audit_under_load_finds_no_false_difference_and_names_real_ones() {
    scenario_within(Duration::from_secs(180), async || {
        let builder = StackBuilder { processors: 2, apis: 2, ..Stack::builder() };
        let mut stack = builder.start().await?;
        stack.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&stack.system);
        load.wait_for_acknowledgements(300).await?;
        let audit = Audit::new(&stack)?;
        audit.finds_no_difference(6).await?;
        stack.processors.remove(0).process.kill()?;
        audit.finds_no_difference(6).await?;
        stack.wait_until_all_owned().await?;
        load.wait_for_acknowledgements(50).await?;
        audit.finds_no_difference(6).await?;

        let ledger = load.stop().await?;
        ledger.verify_counted(&stack, BUDGET, CATEGORIES).await?;
        stack.tables().await?.swap_categories(BUDGET, 2).await?;
        let (code, output) = audit.run().await?;
        ensure!(code == Some(1), "ended with {code:?}: {output}");
        for category in 0..2 {
            let difference = format!(
                "the store's totals, partition 2, budget `{BUDGET}`, category {category}: basis points: "
            );
            ensure!(output.contains(&difference), "{output}");
            let labels = format!(
                r#"{{place="totals",partition="2",budget="{BUDGET}",category="{category}"}}"#
            );
            ensure!(output.contains(&format!("allocator_audit_differences{labels} ")), "{output}");
        }
        ensure!(!output.contains("category 2:") && !output.contains("partition 1"), "{output}");
        ensure!(output.contains("\nallocator_audit_clean 0\n"), "{output}");
        Ok(())
    });
}

#[test]
fn the_embedded_default_is_audited_while_it_runs() {
    scenario(async || {
        let embedded = Embedded::start().await?;
        embedded.system.define(BUDGET, CATEGORIES).await?;
        let load = Crowd::new(BUDGET, CATEGORIES).start(&embedded.system);
        load.wait_for_acknowledgements(300).await?;
        let apis = vec![embedded.service.url.clone()];
        let audit = Audit { operator: Operator::for_embedded(&embedded), apis };
        for _ in 0..3 {
            audit.finds_no_difference(4).await?;
            load.wait_for_acknowledgements(50).await?;
        }
        load.stop().await.map(drop)
    });
}

#[test]
fn an_audit_of_a_missing_data_folder_fails_and_creates_nothing() {
    scenario(async || {
        let dir = new_dir("nothing")?.join("data");
        let audit = Audit { operator: Operator::for_data_dir(&dir), apis: Vec::new() };
        let (code, output) = audit.run().await?;
        ensure!(code == Some(2) && output.contains("store.db"), "ended with {code:?}: {output}");
        ensure!(!dir.exists(), "the data folder was created");
        ensure!(output.contains("\nallocator_audit_clean 0\n"), "{output}");
        Ok(())
    });
}
