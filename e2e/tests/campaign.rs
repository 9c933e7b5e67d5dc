//! A campaign of fraud among real ballots: 5 % more, the same ballot from one network. Found by the signals, annulled
//! after a dry run, and restored: the published totals are exactly those without it, and then exactly those with it.

#[path = "exactness/pabulib.rs"]
mod pabulib;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::audit;
use e2e::embedded::Embedded;
use e2e::operator::{Operator, wait_for_exit};
use e2e::oracle::Totals;
use e2e::record::SubmissionRecord;
use e2e::response::send;
use e2e::scenario::{new_dir, scenario_within};
use e2e::stack::{Stack, StackBuilder};
use e2e::system::{System, allocation};
use e2e::wait::eventually;
use futures_util::{StreamExt, stream};
use prost::Message;
use reqwest::Method;
use serde_json::{Value, json};

const BUDGET: &str = "campaign";
/// Real ballots of the tests that do not take the whole file.
const SOME_BALLOTS: usize = 4_000;
/// Networks that the real ballots come from.
const HONEST_NETWORKS: usize = 100;
const FRAUD_ADDRESS: &str = "203.0.113.7";
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than an API keeps an answer about signals.
const SIGNALS_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the campaign is submitted again for signals that were lost.
const MAX_REPETITIONS: u32 = 8;
const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// Submissions under way at a time.
const MAX_CONCURRENT: usize = 64;
/// People that one job names at most.
const MAX_NAMED_PEOPLE: usize = 200;
/// The test's clients send from one machine, as proxies do.
const SETTINGS: [&str; 3] = [
    "limits.submissions=off",
    "limits.uploads=off",
    // A busy broker takes its time for the first records of a topic, and a signal that is late is dropped.
    "kafka.delivery_timeout_ms=15000",
];

struct Campaign {
    categories: usize,
    honest: Vec<Vec<u32>>,
    /// The one ballot of the campaign.
    fraud: Vec<u32>,
}

/// How many ballots of the file to take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ballots {
    /// All real ones, or some that are synthetic.
    All,
    Some,
}

impl Campaign {
    /// Takes real ballots from the file in `ALLOCATOR_REAL_BALLOTS`; without that variable, synthetic ones.
    fn new(ballots: Ballots) -> Result<Self> {
        let text = match std::env::var_os("ALLOCATOR_REAL_BALLOTS").map(PathBuf::from) {
            Some(file) => std::fs::read_to_string(file)?,
            None => pabulib::synthetic(SOME_BALLOTS as u64),
        };
        let (names, mut honest) = pabulib::count(&text)?;
        ensure!(honest.len() >= SOME_BALLOTS, "only {} ballots", honest.len());
        if ballots == Ballots::Some {
            honest.truncate(SOME_BALLOTS);
        }
        let categories = names.len();
        let mut fraud = vec![0; categories];
        (fraud[0], fraud[categories - 1]) = (300, 9_700);
        Ok(Self { categories, honest, fraud })
    }

    /// Number of ballots of the campaign: 5 % more.
    fn fraudulent(&self) -> usize {
        self.honest.len() / 20
    }

    fn people_of_a_network(&self) -> usize {
        self.honest.len().div_ceil(HONEST_NETWORKS)
    }

    fn totals_without_fraud(&self) -> Totals {
        Totals::from_allocations(self.categories, &self.honest)
    }

    fn totals_with_fraud(&self) -> Totals {
        let fraud = std::iter::repeat_n(&self.fraud, self.fraudulent());
        Totals::from_allocations(self.categories, self.honest.iter().chain(fraud))
    }

    /// Submits all ballots as the public does, each from its network, the fraud among the others.
    async fn submit(&self, system: &System) -> Result<()> {
        system.define(BUDGET, self.categories).await?;
        let public = system.without_token()?;
        let (people, fraudulent) = (self.people_of_a_network(), self.fraudulent());
        let networks = self.honest.chunks(people);
        let rounds = networks.len();
        for (network, ballots) in networks.enumerate() {
            let first = network * people;
            let honest = (first..).map(|number| format!("voter-{number}")).zip(ballots);
            let address = format!("20.{}.{}.1", network / 200, network % 200);
            submit_from(&public, network, &address, honest).await?;
            let (from, until) =
                (network * fraudulent / rounds, (network + 1) * fraudulent / rounds);
            submit_from(&public, network, FRAUD_ADDRESS, self.fraud(from..until)).await?;
        }
        Ok(())
    }

    /// Returns persons of the campaign with their ballot.
    fn fraud(&self, numbers: Range<usize>) -> impl Iterator<Item = (String, &Vec<u32>)> {
        numbers.map(|number| (format!("ghost-{number}"), &self.fraud))
    }
}

/// Submits each ballot alone, as persons do, some at a time.
async fn submit_from(
    public: &System,
    ingest: usize,
    address: &str,
    ballots: impl Iterator<Item = (String, &Vec<u32>)>,
) -> Result<()> {
    let url = format!("{}/v1/budgets/{BUDGET}/submissions", public.write_to(ingest));
    let submissions = ballots.map(|(person, shares)| {
        let request = public.request(Method::POST, url.clone());
        let body = json!({"person": person, "allocation": allocation(shares)});
        send(request.header("x-forwarded-for", address).json(&body))
    });
    let mut answers = stream::iter(submissions).buffer_unordered(MAX_CONCURRENT);
    while let Some(answer) = answers.next().await {
        answer?.expect(202)?;
    }
    Ok(())
}

/// The largest network, as `GET …/signals` shows it.
struct LargestNetwork {
    digest: String,
    from: String,
    /// A second after the last submission.
    until: String,
}

/// Finds the campaign by the signals. Signals are best effort: people whose signal was lost submit again.
async fn find_campaign(system: &System, campaign: &Campaign) -> Result<LargestNetwork> {
    let public = system.without_token()?;
    let mut found = wait_for_signals(system, campaign).await;
    for _ in 0..MAX_REPETITIONS {
        if found.is_ok() {
            break;
        }
        let everyone = campaign.fraud(0..campaign.fraudulent());
        submit_from(&public, 0, FRAUD_ADDRESS, everyone).await?;
        found = wait_for_signals(system, campaign).await;
    }
    found
}

async fn wait_for_signals(system: &System, campaign: &Campaign) -> Result<LargestNetwork> {
    let path = format!("/v1/admin/budgets/{BUDGET}/signals?hours=1");
    eventually("the signals show the campaign", SIGNALS_TIMEOUT, async || {
        let signals = system.get(&path).await?.expect(200)?.json()?;
        let [largest, second] = [0, 1].map(|index| &signals["networks"][index]);
        let people = |network: &Value| network["people"].as_u64().unwrap_or_default() as usize;
        ensure!(
            people(largest) == campaign.fraudulent()
                && people(second) <= campaign.people_of_a_network(),
            "the largest networks: {largest}, {second}"
        );
        ensure!(largest["ballots"] == 1, "different ballots: {largest}");
        let text = |name: &str| {
            largest[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"))
        };
        let last: jiff::Timestamp = text("last_at")?.parse()?;
        let until = last.checked_add(Duration::from_secs(1))?;
        Ok(LargestNetwork {
            digest: text("network")?,
            from: text("first_at")?,
            until: until.to_string(),
        })
    })
    .await
}

/// Submits a job to a path of the API, and returns it once it has succeeded.
async fn run_job(system: &System, path: &str, body: &Value) -> Result<Value> {
    let url = format!("{}{path}", system.read_from(0));
    let response = send(system.request(Method::POST, url).json(body)).await?.expect(202)?;
    let id = response.json()?["id"].as_str().context("no id")?.to_owned();
    eventually("the job succeeds", COMMAND_TIMEOUT, async || {
        let job = system.get(&format!("/v1/admin/jobs/{id}")).await?.expect(200)?.json()?;
        ensure!(job["state"] == "succeeded" && job["verdict"] == "clean", "{job}");
        Ok(job)
    })
    .await
}

/// Checks what a job says that an annulment changes.
fn check_effect(effect: &Value, campaign: &Campaign) -> Result<()> {
    let (honest, fraudulent) = (campaign.honest.len(), campaign.fraudulent());
    let people = json!([fraudulent, fraudulent, 0, 0, 0, honest + fraudulent, honest]);
    let found = json!([
        effect["selected"],
        effect["changed"],
        effect["unknown"],
        effect["unchanged"],
        effect["without_ballot"],
        effect["before"]["people"],
        effect["after"]["people"],
    ]);
    ensure!(found == people, "{effect}");
    Ok(())
}

/// The command's audit finds no difference.
async fn audit_command(stack: &Stack, operator: &Operator) -> Result<()> {
    let mut command = vec!["audit"];
    command.extend(stack.apis.iter().flat_map(|api| ["--api", api.url.as_str()]));
    let (code, output) = wait_for_exit(operator.start(&command)?, COMMAND_TIMEOUT).await?;
    ensure!(code == Some(0) && output.contains(" differences=0 "), "{code:?}: {output}");
    Ok(())
}

#[test]
fn a_campaign_is_found_annulled_and_restored_exactly_on_real_servers() {
    scenario_within(Duration::from_secs(900), async || {
        let campaign = Campaign::new(Ballots::All)?;
        let settings = SETTINGS.map(str::to_owned).to_vec();
        let builder =
            StackBuilder { ingests: 2, processors: 2, apis: 2, settings, ..Stack::builder() };
        let mut stack = builder.start().await?;
        campaign.submit(&stack.system).await?;
        let (with_fraud, without_fraud) =
            (campaign.totals_with_fraud(), campaign.totals_without_fraud());
        stack.system.wait_until_shown(BUDGET, &with_fraud, TIMEOUT).await?;
        let found = find_campaign(&stack.system, &campaign).await?;

        let path = format!("/v1/admin/budgets/{BUDGET}/annulments");
        let mut request = json!({
            "network": found.digest, "from": found.from, "until": found.until,
            "reason": "one ballot, one network", "dry_run": true,
        });
        // Person rows follow the totals within moments.
        eventually("a dry run knows everyone", TIMEOUT, async || {
            let dry_run = run_job(&stack.system, &path, &request).await?;
            check_effect(&dry_run["effect"], &campaign)
        })
        .await?;
        stack.system.wait_until_shown(BUDGET, &with_fraud, TIMEOUT).await?;
        request["dry_run"] = json!(false);
        let annulled = run_job(&stack.system, &path, &request).await?;
        check_effect(&annulled["effect"], &campaign)?;
        stack.system.wait_until_shown(BUDGET, &without_fraud, TIMEOUT).await?;
        let totals = audit::exact(&stack, BUDGET, campaign.categories).await?;
        ensure!(totals == without_fraud, "the log's totals have the fraud");
        let listed = stack.system.get(&path).await?.expect(200)?.json()?;
        ensure!(
            listed["annulments"][0]["state"] == "done"
                && listed["annulments"][0]["people"] == campaign.fraudulent(),
            "{listed}"
        );

        stack.processors.remove(0).process.kill()?;
        stack.wait_until_all_owned().await?;
        stack.add_processor().await?;
        stack.system.wait_until_shown(BUDGET, &without_fraud, TIMEOUT).await?;
        let operator = Operator::for_stack(&stack)?;
        audit_command(&stack, &operator).await?;
        let output = operator.run(&["rebuild"], COMMAND_TIMEOUT).await?;
        ensure!(output.contains("differences=0 answers now"), "{output}");
        stack.system.wait_until_shown(BUDGET, &without_fraud, TIMEOUT).await?;
        audit_command(&stack, &operator).await?;

        let id = annulled["annulment"].as_str().context("no annulment")?;
        let restored = run_job(&stack.system, &format!("{path}/{id}/restore"), &json!({})).await?;
        ensure!(restored["effect"]["changed"] == campaign.fraudulent(), "{restored}");
        stack.system.wait_until_shown(BUDGET, &with_fraud, TIMEOUT).await?;
        audit_command(&stack, &operator).await
    });
}

#[test]
fn people_named_in_a_file_are_annulled_in_parts_and_restored_by_the_command() {
    scenario_within(Duration::from_secs(900), async || {
        let campaign = Campaign::new(Ballots::Some)?;
        let settings = SETTINGS.map(str::to_owned).to_vec();
        let stack = StackBuilder { settings, ..Stack::builder() }.start().await?;
        campaign.submit(&stack.system).await?;
        let with_fraud = campaign.totals_with_fraud();
        stack.system.wait_until_shown(BUDGET, &with_fraud, TIMEOUT).await?;
        // Everyone whose allocation has a part in a category: of those with more people than a job may name, the
        // smallest.
        let mut people = vec![BTreeSet::new(); campaign.categories];
        for record in stack.kafka.read(&stack.topic).await? {
            let submission = SubmissionRecord::decode(&record.value[..])?;
            for (people, share) in people.iter_mut().zip(&submission.basis_points) {
                if submission.budget == BUDGET && *share > 0 {
                    people.insert(record.key.clone());
                }
            }
        }
        let chosen = (0..people.len())
            .filter(|category| people[*category].len() > 2 * MAX_NAMED_PEOPLE)
            .min_by_key(|category| people[*category].len())
            .context("no category has enough people")?;
        let keys = &people[chosen];
        let is_wanted = |shares: &[u32]| shares.get(chosen).is_some_and(|share| *share > 0);
        let fraud = std::iter::repeat_n(&campaign.fraud, campaign.fraudulent());
        let others = campaign.honest.iter().chain(fraud).filter(|shares| !is_wanted(shares));
        let expected = Totals::from_allocations(campaign.categories, others);
        let mut text = "# people\n".to_owned();
        for key in keys {
            let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{digits}")?;
        }
        let file = new_dir("persons")?.join("persons.txt");
        std::fs::write(&file, text)?;
        let file = file.display().to_string();
        let operator = Operator::for_stack(&stack)?;
        let create = ["annulments", "create", "--budget", BUDGET, "--persons", &file];
        let create = [&create[..], &["--reason", "a list \"of\" people"]].concat();
        let dry_run = [&create[..], &["--dry-run"]].concat();
        let output = operator.run(&dry_run, COMMAND_TIMEOUT).await?;
        ensure!(output.contains(&format!("{:>12}  people selected", keys.len())), "{output}");
        // Nobody can be asked.
        let (code, output) = wait_for_exit(operator.start(&create)?, COMMAND_TIMEOUT).await?;
        ensure!(code == Some(2) && output.contains("--yes"), "{code:?}: {output}");
        stack.system.wait_until_shown(BUDGET, &with_fraud, TIMEOUT).await?;
        let output = operator.run(&[&create[..], &["--yes"]].concat(), COMMAND_TIMEOUT).await?;
        let id = output.lines().find_map(|line| line.strip_prefix("annulment "));
        let id = id.context(output.clone())?;
        stack.system.wait_until_shown(BUDGET, &expected, TIMEOUT).await?;
        audit::exact(&stack, BUDGET, campaign.categories).await?;
        let list = ["annulments", "list", "--budget", BUDGET];
        let output = operator.run(&list, COMMAND_TIMEOUT).await?;
        let listed = format!("{} people", keys.len());
        ensure!(output.contains(&listed) && output.contains("  done "), "{output}");
        let restore = ["annulments", "restore", "--budget", BUDGET, id, "--yes"];
        operator.run(&restore, COMMAND_TIMEOUT).await?;
        stack.system.wait_until_shown(BUDGET, &with_fraud, TIMEOUT).await?;
        audit_command(&stack, &operator).await
    });
}

#[test]
fn a_campaign_is_annulled_and_restored_by_commands_while_the_embedded_default_runs() {
    scenario_within(Duration::from_secs(600), async || {
        let campaign = Campaign::new(Ballots::Some)?;
        let dir = new_dir("embedded")?;
        let embedded = Embedded::start_with(&dir, dir.join("data"), &SETTINGS).await?;
        let system = &embedded.system;
        campaign.submit(system).await?;
        let with_fraud = campaign.totals_with_fraud();
        system.wait_until_shown(BUDGET, &with_fraud, TIMEOUT).await?;
        let found = find_campaign(system, &campaign).await?;
        let operator = Operator::for_embedded(&embedded);
        let create = [
            "annulments",
            "create",
            "--budget",
            BUDGET,
            "--network",
            &found.digest,
            "--from",
            &found.from,
            "--until",
            &found.until,
            "--reason",
            "one ballot, one network",
            "--yes",
        ];
        let output = operator.run(&create, COMMAND_TIMEOUT).await?;
        ensure!(
            output.contains(&format!("{:>12}  people selected", campaign.fraudulent())),
            "{output}"
        );
        let id = output.lines().find_map(|line| line.strip_prefix("annulment "));
        let id = id.context(output.clone())?;
        system.wait_until_shown(BUDGET, &campaign.totals_without_fraud(), TIMEOUT).await?;
        let restore = ["annulments", "restore", "--budget", BUDGET, id, "--yes"];
        operator.run(&restore, COMMAND_TIMEOUT).await?;
        system.wait_until_shown(BUDGET, &with_fraud, TIMEOUT).await
    });
}
