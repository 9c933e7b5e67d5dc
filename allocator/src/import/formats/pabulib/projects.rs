//! The section PROJECTS: what could be voted for, and which category of the budget each of it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::BufRead;

use schemas::{Category, MAX_CATEGORIES, MIN_CATEGORIES};

use crate::import::file::{FileFault, ReadError, Records, shown};
use crate::import::slugs::{self, Named};

use super::{Columns, ended_early, section_name};

/// The most projects that a file may have: what is kept of them stays in memory.
const PROJECTS_MAX: usize = 100_000;

/// What of a file becomes the budget's categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Grouping {
    /// The projects' categories.
    Category,
    /// The projects themselves.
    Project,
}

/// The projects' ids, and the budget's categories.
pub(super) struct Projects {
    categories: Vec<Category>,
    /// Where each project's category stands among `categories`.
    places: HashMap<String, usize>,
}

/// A project as the file has it.
struct Project {
    id: String,
    /// What becomes the category's id, and its name.
    named: Named,
}

impl Projects {
    pub(super) fn read<R: BufRead>(
        records: &mut Records<R>,
        grouping: Grouping,
    ) -> Result<Self, ReadError> {
        let columns = Columns::read(records, "PROJECTS")?;
        let reader = ProjectReader::new(&columns, grouping)?;
        let mut projects: Vec<Project> = Vec::new();
        let mut ids = BTreeSet::new();
        while let Some(record) = records.next_record()? {
            match section_name(&record) {
                Some("VOTES") => return Ok(Self::new(projects, grouping, columns.line)?),
                Some(other) => {
                    let detail = format!("section {other} stands where VOTES should");
                    return Err(FileFault::new(record.line, detail).into());
                }
                None => {}
            }
            let line = record.line;
            let fault = |detail: String| FileFault::new(line, detail);
            columns.fit(&record).map_err(fault)?;
            let project =
                reader.project(|column| record.field(column).unwrap_or_default()).map_err(fault)?;
            if !ids.insert(project.id.clone()) {
                return Err(fault(format!("project {} is there twice", shown(&project.id))).into());
            }
            if ids.len() > PROJECTS_MAX {
                return Err(fault(format!(
                    "is the file's project number {}; at most {PROJECTS_MAX} are taken",
                    ids.len()
                ))
                .into());
            }
            projects.push(project);
        }
        Err(ended_early(records, "VOTES"))
    }

    fn new(projects: Vec<Project>, grouping: Grouping, line: u64) -> Result<Self, FileFault> {
        let distinct: BTreeMap<&str, &Named> = projects
            .iter()
            .map(|project| (project.named.source.as_str(), &project.named))
            .collect();
        let found = distinct.len();
        if !(MIN_CATEGORIES..=MAX_CATEGORIES).contains(&found) {
            let (what, other) = match grouping {
                Grouping::Category => ("categories", "project"),
                Grouping::Project => ("projects", "category"),
            };
            return Err(FileFault::new(
                line,
                format!(
                    "the projects below make {found} {what}, where a budget has {MIN_CATEGORIES} to {MAX_CATEGORIES} categories; \
                 try `--by {other}`"
                ),
            ));
        }
        let made = slugs::categories(distinct.into_values().cloned());
        let rank: BTreeMap<&str, usize> =
            made.iter().enumerate().map(|(place, (source, _))| (source.as_str(), place)).collect();
        let places = projects
            .iter()
            .filter_map(|project| {
                Some((project.id.clone(), *rank.get(project.named.source.as_str())?))
            })
            .collect();
        let categories = made.into_iter().map(|(_, category)| category).collect();
        Ok(Self { categories, places })
    }

    /// The budget's categories, in ascending order of id.
    pub(super) fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// Where a project's category stands among them.
    pub(super) fn place(&self, project: &str) -> Option<usize> {
        self.places.get(project).copied()
    }
}

/// Reads one record's project.
struct ProjectReader {
    id: usize,
    name: Option<usize>,
    category: Option<usize>,
}

impl ProjectReader {
    fn new(columns: &Columns, grouping: Grouping) -> Result<Self, FileFault> {
        let category = match grouping {
            Grouping::Category => Some(columns.optional("category").ok_or_else(|| {
                let detail = "PROJECTS has no column `category`; try `--by project`";
                FileFault::new(columns.line, detail)
            })?),
            Grouping::Project => None,
        };
        Ok(Self {
            id: columns.required("project_id", "PROJECTS")?,
            name: columns.optional("name"),
            category,
        })
    }

    fn project<'r>(&self, field: impl Fn(usize) -> &'r str) -> Result<Project, String> {
        let id = field(self.id).to_owned();
        if id.is_empty() {
            return Err("has a project without a `project_id`".to_owned());
        }
        let named = match self.category.map(&field) {
            Some("") => {
                return Err(format!("project {} has no category; try `--by project`", shown(&id)));
            }
            // Pabulib separates several categories of one project by commas: its points belong to none of them alone.
            Some(several) if several.contains(',') => {
                return Err(format!(
                    "project {} is in several categories, {}; try `--by project`",
                    shown(&id),
                    shown(several)
                ));
            }
            Some(category) => Named { source: category.to_owned(), name: category.to_owned() },
            None => {
                let name = self.name.map(field).filter(|name| !name.is_empty());
                Named { source: id.clone(), name: name.unwrap_or(&id).to_owned() }
            }
        };
        Ok(Project { id, named })
    }
}
