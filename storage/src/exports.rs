//! Exports' files, in a folder that whoever makes them and whoever hands them out share. A published one is in a folder
//! of its own: nothing is handed out that nobody has decided to publish.
//!
//! Each export is named after its budget and job, and is whole once what is said about it (`.json`) stands beside it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use schemas::BudgetId;
use schemas::export::Manifest;
use schemas::job::{ExportFormat, JobId};

const PUBLIC: &str = "public";
/// What is said about an export is some kilobytes at most.
const MANIFEST_MAX_BYTES: u64 = 1024 * 1024;

/// So often it is looked for one while others are put in its place.
const LOOKS: usize = 3;

/// Whether an export is handed out to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// It is for whoever can read the folder.
    Operators,
    /// The apis hand it out.
    Everybody,
}

/// The folder of exports.
#[derive(Debug, Clone)]
pub struct Exports(PathBuf);

/// An export that is handed out.
#[derive(Debug)]
pub struct Published {
    /// What it is.
    pub manifest: Manifest,
    /// Its bytes, from the first on.
    pub file: File,
}

/// An export that is handed out, in the order in which they take each other's place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    /// Its text grows with what is counted. None, if what is said about it cannot be read.
    version: Option<String>,
    /// When it was done.
    at: SystemTime,
    path: PathBuf,
}

impl Exports {
    /// In this folder, which need not be there yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// The folder of those for an audience.
    pub fn dir(&self, audience: Audience) -> PathBuf {
        match audience {
            Audience::Operators => self.0.clone(),
            Audience::Everybody => self.0.join(PUBLIC),
        }
    }

    /// Where a job's export is: the same at each of its tries.
    pub fn path(
        &self,
        budget: &BudgetId,
        job: JobId,
        format: ExportFormat,
        audience: Audience,
    ) -> PathBuf {
        self.dir(audience).join(format!("{budget}-{job}.{format}"))
    }

    /// The newest one that is handed out and whole: as of the latest version, whichever was done last. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn newest(&self, budget: &BudgetId, format: ExportFormat) -> io::Result<Option<Published>> {
        for _ in 0..LOOKS {
            let mut found = self.published(budget, format)?;
            found.sort_unstable_by(|one, other| other.cmp(one));
            let opened = found.iter().find_map(|it| open(&it.path).transpose()).transpose()?;
            if opened.is_some() || found.is_empty() {
                return Ok(opened);
            }
            // What was there has been replaced meanwhile.
        }
        Ok(None)
    }

    /// Deletes those that this one takes the place of. Blocks.
    ///
    /// # Errors
    /// When one cannot be deleted.
    pub fn delete_older_than(
        &self,
        path: &Path,
        budget: &BudgetId,
        format: ExportFormat,
    ) -> io::Result<()> {
        let found = self.published(budget, format)?;
        let Some(this) = found.iter().find(|it| it.path == path) else { return Ok(()) };
        for older in found.iter().filter(|it| *it < this).map(|it| &it.path) {
            // Without the file it is none; the other way round, a file of which nothing is said would stay for ever.
            fs::remove_file(older)?;
            fs::remove_file(beside(older))?;
        }
        Ok(())
    }

    /// Those that are handed out.
    fn published(&self, budget: &BudgetId, format: ExportFormat) -> io::Result<Vec<Found>> {
        let dir = self.dir(Audience::Everybody);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let suffix = format!(".{format}.json");
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let job = name
                .to_str()
                .and_then(|name| name.strip_prefix(budget.as_str())?.strip_prefix('-'))
                .and_then(|rest| rest.strip_suffix(&suffix)?.parse::<JobId>().ok());
            let Some(job) = job else { continue };
            let at = entry.metadata().and_then(|about| about.modified());
            match at.and_then(|at| Ok((at, said_in(File::open(entry.path())?)?))) {
                Ok((at, manifest)) => found.push(Found {
                    version: manifest.map(|manifest| manifest.version),
                    at,
                    path: self.path(budget, job, format, Audience::Everybody),
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// Where what is said about a file is said: its name with `.json` at the end.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

/// What is said about an export; `None` if that cannot be read.
fn said_in(file: File) -> io::Result<Option<Manifest>> {
    let mut bytes = Vec::new();
    file.take(MANIFEST_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Opens an export; `None` if it is not whole, or not there any more.
fn open(path: &Path) -> io::Result<Option<Published>> {
    let opened = (|| {
        let said = File::open(beside(path))?;
        let file = File::open(path)?;
        Ok::<_, io::Error>((said, file))
    })();
    let (said, file) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (about, said_at) = (file.metadata()?, said.metadata()?.modified()?);
    let Some(manifest) = said_in(said)? else { return Ok(None) };
    // What is said is written after what it is about. If it is older, it is about what another try had written.
    let is_about_it = about.len() == manifest.bytes && about.modified()? <= said_at;
    Ok(is_about_it.then_some(Published { manifest, file }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use schemas::Generation;
    use schemas::export::Facts;
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    const CSV: ExportFormat = ExportFormat::Csv;

    fn budget(id: &str) -> BudgetId {
        BudgetId::parse(id).unwrap()
    }

    /// A folder of exports, and how to put one there.
    struct World(TempDir, Exports);

    impl World {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            let exports = Exports::new(dir.path());
            fs::create_dir(exports.dir(Audience::Everybody)).unwrap();
            Self(dir, exports)
        }

        /// Puts a job's export there, as of this second.
        fn put(&self, id: &str, job: u128, second: u64, rows: &str) -> PathBuf {
            self.put_version(id, job, second, rows, "")
        }

        fn put_version(
            &self,
            id: &str,
            job: u128,
            second: u64,
            rows: &str,
            version: &str,
        ) -> PathBuf {
            let job = JobId(Uuid::from_u128(job));
            let path = self.1.path(&budget(id), job, CSV, Audience::Everybody);
            self.write(&path, second, rows.as_bytes());
            let facts = Facts {
                budget: id.to_owned(),
                name: id.to_owned(),
                positions: Vec::new(),
                people: 1,
                categories: Vec::new(),
            };
            let manifest = Manifest {
                facts,
                format: CSV,
                sha256: rows.to_owned(),
                bytes: rows.len() as u64,
                generation: Generation::FIRST,
                version: version.to_owned(),
                exported_at: jiff::Timestamp::UNIX_EPOCH,
            };
            self.write(&beside(&path), second, &serde_json::to_vec(&manifest).unwrap());
            path
        }

        fn write(&self, path: &Path, second: u64, bytes: &[u8]) {
            fs::write(path, bytes).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        }

        /// What is handed out of a budget.
        fn newest(&self, id: &str) -> Option<String> {
            let mut published = self.1.newest(&budget(id), CSV).unwrap()?;
            let mut rows = String::new();
            published.file.read_to_string(&mut rows).unwrap();
            assert_eq!(published.manifest.sha256, rows);
            Some(rows)
        }
    }

    #[test]
    fn the_newest_of_a_budget_is_handed_out_and_of_no_other_whose_name_begins_alike() {
        let world = World::new();
        assert_eq!(world.newest("town"), None);
        world.put("town", 9, 10, "older");
        world.put("town", 1, 11, "newer");
        world.put("town-hall", 3, 12, "another");
        assert_eq!(world.newest("town").as_deref(), Some("newer"));
        assert_eq!(world.newest("town-hall").as_deref(), Some("another"));
        assert_eq!(world.newest("tow"), None);
        assert!(world.1.newest(&budget("town"), ExportFormat::Pb).unwrap().is_none());
    }

    #[test]
    fn one_that_was_begun_before_and_done_after_another_does_not_take_its_place() {
        let world = World::new();
        let later = world.put_version("town", 1, 10, "later", "00000001-0000000000000009-x");
        let before = world.put_version("town", 2, 20, "before", "00000001-0000000000000008-y");
        assert_eq!(world.newest("town").as_deref(), Some("later"));
        world.1.delete_older_than(&before, &budget("town"), CSV).unwrap();
        assert!(later.exists());
        world.1.delete_older_than(&later, &budget("town"), CSV).unwrap();
        assert_eq!((later.exists(), before.exists()), (true, false));
    }

    #[test]
    fn what_is_not_published_or_not_whole_is_not_handed_out() {
        let world = World::new();
        assert!(
            Exports::new(world.0.path().join("none"))
                .newest(&budget("town"), CSV)
                .unwrap()
                .is_none()
        );
        let before = world.put("town", 1, 10, "before");
        let newer = world.put("town", 2, 20, "newer");
        let is_before = || assert_eq!(world.newest("town").as_deref(), Some("before"));
        // Another try has put its file, and not yet what is said about it: as long as the one before, and not.
        for rows in [&b"other"[..], b"others"] {
            world.write(&newer, 21, rows);
            is_before();
        }
        fs::write(beside(&newer), "no manifest").unwrap();
        is_before();
        fs::remove_file(&newer).unwrap();
        is_before();
        let hidden = world.1.path(&budget("town"), JobId(Uuid::nil()), CSV, Audience::Operators);
        fs::rename(&before, &hidden).unwrap();
        fs::rename(beside(&before), beside(&hidden)).unwrap();
        assert_eq!(world.newest("town"), None);
    }

    #[test]
    fn what_was_handed_out_before_is_deleted_and_nothing_else() {
        let world = World::new();
        world.put("town", 1, 10, "older");
        world.put("town-hall", 2, 10, "another");
        let this = world.put("town", 3, 20, "this");
        let later = world.put("town", 4, 30, "later");
        world.1.delete_older_than(&this, &budget("town"), CSV).unwrap();
        let left = fs::read_dir(world.1.dir(Audience::Everybody)).unwrap().count();
        assert_eq!((left, this.exists(), later.exists()), (6, true, true));
        assert_eq!(world.newest("town-hall").as_deref(), Some("another"));
    }
}
