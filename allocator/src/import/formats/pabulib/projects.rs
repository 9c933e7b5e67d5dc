//! The section PROJECTS: maps each project to a category of the budget.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::BufRead;

use schemas::{Category, MAX_CATEGORIES, MIN_CATEGORIES};

use crate::import::file::{FileFault, FileReadError, FileRecords, quoted};
use crate::import::slugs::{self, UnidentifiedCategory};

use super::{Columns, missing_section, section_name};

/// Maximum number of projects in a file, because all of them are kept in memory.
const MAX_PROJECTS: usize = 100_000;

/// What becomes the budget's categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Grouping {
    /// Each category of the projects
    Category,
    /// Each project
    Project,
}

/// The budget's categories, and the category of each project.
pub(super) struct Projects {
    categories: Vec<Category>,
    /// Index into `categories` by project id.
    category_by_project: HashMap<String, usize>,
}

/// A project of the file.
struct Project {
    id: String,
    category: UnidentifiedCategory,
}

impl Projects {
    pub(super) fn parse<R: BufRead>(
        records: &mut FileRecords<R>,
        grouping: Grouping,
    ) -> Result<Self, FileReadError> {
        let columns = Columns::parse(records, "PROJECTS")?;
        let parser = ProjectParser::new(&columns, grouping)?;
        let mut projects: Vec<Project> = Vec::new();
        let mut ids = BTreeSet::new();
        while let Some(record) = records.next_record()? {
            match section_name(&record) {
                Some("VOTES") => return Ok(Self::new(projects, grouping, columns.at.number)?),
                Some(other) => {
                    let detail = format!("expected section VOTES, found {other}");
                    return Err(FileFault::new(record.at.number, detail).into());
                }
                None => {}
            }
            let line = record.at.number;
            let fault = |detail: String| FileFault::new(line, detail);
            columns.check_field_count(&record).map_err(fault)?;
            let project =
                parser.parse(|column| record.field(column).unwrap_or_default()).map_err(fault)?;
            if !ids.insert(project.id.clone()) {
                return Err(fault(format!("project {} appears twice", quoted(&project.id))).into());
            }
            if ids.len() > MAX_PROJECTS {
                return Err(fault(format!(
                    "is project number {} of the file; the maximum is {MAX_PROJECTS}",
                    ids.len()
                ))
                .into());
            }
            projects.push(project);
        }
        Err(missing_section(records, "VOTES"))
    }

    fn new(projects: Vec<Project>, grouping: Grouping, line: u64) -> Result<Self, FileFault> {
        let distinct: BTreeMap<&str, &UnidentifiedCategory> = projects
            .iter()
            .map(|project| (project.category.source.as_str(), &project.category))
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
                    "the projects have {found} {what}, but a budget has {MIN_CATEGORIES} to {MAX_CATEGORIES} categories; \
                 try `--by {other}`"
                ),
            ));
        }
        let categories = slugs::categories(distinct.into_values().cloned());
        let index_by_source: BTreeMap<&str, usize> = categories
            .iter()
            .enumerate()
            .map(|(index, (source, _))| (source.as_str(), index))
            .collect();
        let category_by_project = projects
            .iter()
            .filter_map(|project| {
                Some((project.id.clone(), *index_by_source.get(project.category.source.as_str())?))
            })
            .collect();
        let categories = categories.into_iter().map(|(_, category)| category).collect();
        Ok(Self { categories, category_by_project })
    }

    /// The budget's categories, in ascending order of id.
    pub(super) fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// The number of projects.
    pub(super) fn count(&self) -> u64 {
        self.category_by_project.len() as u64
    }

    /// The index of a project's category.
    pub(super) fn category_index(&self, project: &str) -> Option<usize> {
        self.category_by_project.get(project).copied()
    }
}

/// Parses a record as a project.
struct ProjectParser {
    id: usize,
    name: Option<usize>,
    category: Option<usize>,
}

impl ProjectParser {
    fn new(columns: &Columns, grouping: Grouping) -> Result<Self, FileFault> {
        let category = match grouping {
            Grouping::Category => Some(columns.optional("category").ok_or_else(|| {
                let detail = "PROJECTS has no column `category`; try `--by project`";
                FileFault::new(columns.at.number, detail)
            })?),
            Grouping::Project => None,
        };
        Ok(Self {
            id: columns.required("project_id", "PROJECTS")?,
            name: columns.optional("name"),
            category,
        })
    }

    fn parse<'r>(&self, field: impl Fn(usize) -> &'r str) -> Result<Project, String> {
        let id = field(self.id).to_owned();
        if id.is_empty() {
            return Err("the project has no `project_id`".to_owned());
        }
        let category = match self.category.map(&field) {
            Some("") => {
                return Err(format!("project {} has no category; try `--by project`", quoted(&id)));
            }
            // Pabulib separates several categories of one project by commas. Its points cannot be split among them.
            Some(several) if several.contains(',') => {
                return Err(format!(
                    "project {} is in several categories, {}; try `--by project`",
                    quoted(&id),
                    quoted(several)
                ));
            }
            Some(category) => {
                UnidentifiedCategory { source: category.to_owned(), name: category.to_owned() }
            }
            None => {
                let name = self.name.map(field).filter(|name| !name.is_empty());
                UnidentifiedCategory { source: id.clone(), name: name.unwrap_or(&id).to_owned() }
            }
        };
        Ok(Project { id, category })
    }
}
