//! Counts and generates Pabulib `.pb` files, with a simple implementation independent of the importer.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use e2e::record::mix;

/// Returns the categories' names and each ballot's shares, both in ascending order of category ids.
pub fn count(text: &str) -> Result<(Vec<String>, Vec<Vec<u32>>)> {
    let text = text.replace("\r\n", "\n");
    let (_, rest) = text.split_once("\nPROJECTS\n").context("no PROJECTS")?;
    let (projects, votes) = rest.split_once("\nVOTES\n").context("no VOTES")?;
    let category_of: BTreeMap<String, String> = rows(projects)
        .iter()
        .map(|project| Ok((field(project, "project_id")?, field(project, "category")?)))
        .collect::<Result<_>>()?;
    // An id is the name in lower case with dashes.
    let ids: BTreeSet<(String, String)> = category_of
        .values()
        .map(|name| (name.to_lowercase().replace(' ', "-"), name.clone()))
        .collect();
    let categories: Vec<String> = ids.into_iter().map(|(_, name)| name).collect();
    let allocations = rows(votes)
        .iter()
        .map(|vote| {
            let mut points = vec![0; categories.len()];
            let (projects, given) = (field(vote, "vote")?, field(vote, "points")?);
            for (project, given) in projects.split(',').zip(given.split(',')) {
                let category = category_of.get(project).context("a vote for no project")?;
                let index =
                    categories.iter().position(|name| name == category).context("no category")?;
                points[index] += given.parse::<u32>()?;
            }
            Ok(apportion(&points))
        })
        .collect::<Result<_>>()?;
    Ok((categories, allocations))
}

/// Distributes 10,000 basis points by the largest remainder method; ties go to the first category.
fn apportion(points: &[u32]) -> Vec<u32> {
    let whole: u32 = points.iter().sum();
    let mut shares: Vec<u32> = points.iter().map(|points| points * 10_000 / whole).collect();
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|index| (u32::MAX - points[*index] * 10_000 % whole, *index));
    let missing = 10_000 - shares.iter().sum::<u32>();
    for index in order.into_iter().take(missing as usize) {
        shares[index] += 1;
    }
    shares
}

fn field(row: &BTreeMap<String, String>, name: &str) -> Result<String> {
    row.get(name).cloned().with_context(|| format!("no {name} in {row:?}"))
}

/// Parses rows into maps by the column names of the first row.
fn rows(section: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = section.lines().map(fields);
    let names = lines.next().unwrap_or_default();
    lines.map(|row| names.iter().cloned().zip(row).collect()).collect()
}

/// Splits a line into fields. A quoted field may contain semicolons; two quotes in it are one.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let (mut quoted, mut previous) = (false, ' ');
    for letter in line.chars() {
        match letter {
            '"' => {
                if !quoted && previous == '"' {
                    push(&mut fields, '"');
                }
                quoted = !quoted;
            }
            ';' if !quoted => fields.push(String::new()),
            _ => push(&mut fields, letter),
        }
        previous = letter;
    }
    fields
}

fn push(fields: &mut [String], letter: char) {
    if let Some(last) = fields.last_mut() {
        last.push(letter);
    }
}

/// Generates ballots shaped like real ones: up to three points over some of twelve projects in five categories.
pub fn synthetic(ballots: u64) -> String {
    let categories = ["welfare", "public space", "culture", "public transit and roads", "sport"];
    let mut text = format!(
        "META\nkey;value\ndescription;Ballots of the tests\ncountry;Nowhere\nunit;Testville\ninstance;2030\nnum_projects;12\n\
         num_votes;{ballots}\nbudget;1000000\nvote_type;cumulative\nrule;greedy\nmax_sum_points;3\n\
         PROJECTS\nproject_id;cost;votes;score;name;category;selected\n"
    );
    for project in 0..12 {
        let category = categories[project % categories.len()];
        text.push_str(&format!(
            "P/{project}/X;1000;0;0;\"Parks; trees, and \"\"more\"\" {project}\";{category};0\n"
        ));
    }
    text.push_str("VOTES\nvoter_id;vote;points;age;sex;neighborhood\n");
    for ballot in 0..ballots {
        let bits = mix(ballot);
        let (first, step) = (bits % 12, 1 + bits / 12 % 5);
        let project = |number: u64| format!("P/{}/X", (first + number * step) % 12);
        let (vote, points) = match bits / 60 % 4 {
            0 => (project(0), "3".to_owned()),
            1 => ([project(0), project(1)].join(","), "2,1".to_owned()),
            2 => ([project(0), project(1), project(2)].join(","), "1,1,1".to_owned()),
            _ => (project(0), "1".to_owned()),
        };
        text.push_str(&format!("{};{vote};{points};{};M;\n", 5_000_000 + ballot, 18 + bits % 70));
    }
    text
}
