//! Export files in a directory that processors write and apis serve. Only published exports, which have their own
//! subdirectory, are served.
//!
//! An export's file is named after its budget and job. It is complete once its manifest (`.json`) exists next to it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use schemas::BudgetId;
use schemas::export::Manifest;
use schemas::job::{ExportFormat, JobId};

const PUBLIC_DIR: &str = "public";
/// Bounds the manifest that is read; a real one has a few kilobytes.
const MAX_MANIFEST_BYTES: u64 = 1024 * 1024;

/// Attempts to open the newest export while exports are being replaced.
const MAX_OPEN_ATTEMPTS: usize = 3;

/// Who may read an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Operators, who can read the directory.
    Operators,
    /// All clients of the apis, which serve the export.
    Everybody,
}

/// The directory of exports.
#[derive(Debug, Clone)]
pub struct Exports(PathBuf);

/// An export that the apis serve.
#[derive(Debug)]
pub struct PublishedExport {
    /// The export's manifest.
    pub manifest: Manifest,
    /// The export's file, at its start.
    pub file: File,
}

/// A published export's file, ordered from oldest to newest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ExportFile {
    /// The version of the exported totals, whose text is ordered. `None` if the manifest cannot be read.
    version: Option<String>,
    /// When the manifest was written.
    written_at: SystemTime,
    path: PathBuf,
}

impl Exports {
    /// Uses a directory, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    /// Returns the directory of an audience's exports.
    pub fn dir(&self, audience: Audience) -> PathBuf {
        match audience {
            Audience::Operators => self.0.clone(),
            Audience::Everybody => self.0.join(PUBLIC_DIR),
        }
    }

    /// Returns the path of a job's export. Each of the job's attempts has the same path.
    pub fn path(
        &self,
        budget: &BudgetId,
        job: JobId,
        format: ExportFormat,
        audience: Audience,
    ) -> PathBuf {
        self.dir(audience).join(format!("{budget}-{job}.{format}"))
    }

    /// Opens the newest complete published export: the one with the latest version of the totals. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn open_newest(
        &self,
        budget: &BudgetId,
        format: ExportFormat,
    ) -> io::Result<Option<PublishedExport>> {
        for _ in 0..MAX_OPEN_ATTEMPTS {
            let mut files = self.published(budget, format)?;
            files.sort_unstable_by(|one, other| other.cmp(one));
            let opened = files.iter().find_map(|file| open(&file.path).transpose()).transpose()?;
            if opened.is_some() || files.is_empty() {
                return Ok(opened);
            }
            // All of the listed exports were replaced before they could be opened.
        }
        Ok(None)
    }

    /// Deletes the published exports of the same budget and format that are older than `path`. Blocks.
    ///
    /// # Errors
    /// When a file cannot be deleted.
    pub fn delete_older_than(
        &self,
        path: &Path,
        budget: &BudgetId,
        format: ExportFormat,
    ) -> io::Result<()> {
        let files = self.published(budget, format)?;
        let Some(this) = files.iter().find(|file| file.path == path) else { return Ok(()) };
        for older in files.iter().filter(|file| *file < this).map(|file| &file.path) {
            // The manifest is deleted last: after a crash in between, a file without a manifest would stay forever.
            fs::remove_file(older)?;
            fs::remove_file(manifest_path(older))?;
        }
        Ok(())
    }

    /// Lists the published exports, complete or not.
    fn published(&self, budget: &BudgetId, format: ExportFormat) -> io::Result<Vec<ExportFile>> {
        let dir = self.dir(Audience::Everybody);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let suffix = format!(".{format}.json");
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let job = name
                .to_str()
                .and_then(|name| name.strip_prefix(budget.as_str())?.strip_prefix('-'))
                .and_then(|rest| rest.strip_suffix(&suffix)?.parse::<JobId>().ok());
            let Some(job) = job else { continue };
            let written_at = entry.metadata().and_then(|metadata| metadata.modified());
            match written_at.and_then(|at| Ok((at, read_manifest(File::open(entry.path())?)?))) {
                Ok((written_at, manifest)) => files.push(ExportFile {
                    version: manifest.map(|manifest| manifest.version),
                    written_at,
                    path: self.path(budget, job, format, Audience::Everybody),
                }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }
}

/// Returns the path of a file's manifest: the file's path with `.json` appended.
pub fn manifest_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

/// Reads a manifest; `None` if it is malformed.
fn read_manifest(file: File) -> io::Result<Option<Manifest>> {
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes).ok())
}

/// Opens an export; `None` if it is incomplete, or was deleted.
fn open(path: &Path) -> io::Result<Option<PublishedExport>> {
    let opened = (|| {
        let manifest = File::open(manifest_path(path))?;
        let file = File::open(path)?;
        Ok::<_, io::Error>((manifest, file))
    })();
    let (manifest_file, file) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (metadata, manifest_written_at) = (file.metadata()?, manifest_file.metadata()?.modified()?);
    let Some(manifest) = read_manifest(manifest_file)? else { return Ok(None) };
    // A manifest is written after its file. An older manifest describes the file of an earlier attempt.
    let is_complete =
        metadata.len() == manifest.bytes && metadata.modified()? <= manifest_written_at;
    Ok(is_complete.then_some(PublishedExport { manifest, file }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use schemas::Generation;
    use schemas::export::ExportSummary;
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    const CSV: ExportFormat = ExportFormat::Csv;

    fn budget(id: &str) -> BudgetId {
        BudgetId::parse(id).unwrap()
    }

    /// A temporary directory of exports.
    struct Fixture {
        dir: TempDir,
        exports: Exports,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            let exports = Exports::new(dir.path());
            fs::create_dir(exports.dir(Audience::Everybody)).unwrap();
            Self { dir, exports }
        }

        /// Publishes a job's export, written at this second.
        fn publish(&self, id: &str, job: u128, second: u64, rows: &str) -> PathBuf {
            self.publish_version(id, job, second, rows, "")
        }

        fn publish_version(
            &self,
            id: &str,
            job: u128,
            second: u64,
            rows: &str,
            version: &str,
        ) -> PathBuf {
            let job = JobId(Uuid::from_u128(job));
            let path = self.exports.path(&budget(id), job, CSV, Audience::Everybody);
            self.write(&path, second, rows.as_bytes());
            let summary = ExportSummary {
                budget: id.to_owned(),
                name: id.to_owned(),
                positions: Vec::new(),
                people: 1,
                annulled: 0,
                categories: Vec::new(),
            };
            let manifest = Manifest {
                summary,
                format: CSV,
                sha256: rows.to_owned(),
                bytes: rows.len() as u64,
                generation: Generation::FIRST,
                version: version.to_owned(),
                exported_at: jiff::Timestamp::UNIX_EPOCH,
            };
            self.write(&manifest_path(&path), second, &serde_json::to_vec(&manifest).unwrap());
            path
        }

        fn write(&self, path: &Path, second: u64, bytes: &[u8]) {
            fs::write(path, bytes).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        }

        /// The content of a budget's newest export.
        fn newest(&self, id: &str) -> Option<String> {
            let mut published = self.exports.open_newest(&budget(id), CSV).unwrap()?;
            let mut rows = String::new();
            published.file.read_to_string(&mut rows).unwrap();
            assert_eq!(published.manifest.sha256, rows);
            Some(rows)
        }
    }

    #[test]
    fn the_newest_export_is_opened_and_never_one_of_a_budget_with_a_longer_id() {
        let fixture = Fixture::new();
        assert_eq!(fixture.newest("town"), None);
        fixture.publish("town", 9, 10, "older");
        fixture.publish("town", 1, 11, "newer");
        fixture.publish("town-hall", 3, 12, "another");
        assert_eq!(fixture.newest("town").as_deref(), Some("newer"));
        assert_eq!(fixture.newest("town-hall").as_deref(), Some("another"));
        assert_eq!(fixture.newest("tow"), None);
        let other_format = fixture.exports.open_newest(&budget("town"), ExportFormat::Pb);
        assert!(other_format.unwrap().is_none());
    }

    #[test]
    fn an_export_of_an_older_version_that_finishes_later_does_not_replace_a_newer_one() {
        let fixture = Fixture::new();
        let later = fixture.publish_version("town", 1, 10, "later", "00000001-0000000000000009-x");
        let before =
            fixture.publish_version("town", 2, 20, "before", "00000001-0000000000000008-y");
        assert_eq!(fixture.newest("town").as_deref(), Some("later"));
        fixture.exports.delete_older_than(&before, &budget("town"), CSV).unwrap();
        assert!(later.exists());
        fixture.exports.delete_older_than(&later, &budget("town"), CSV).unwrap();
        assert_eq!((later.exists(), before.exists()), (true, false));
    }

    #[test]
    fn unpublished_and_incomplete_exports_are_not_opened() {
        let fixture = Fixture::new();
        let missing_dir = Exports::new(fixture.dir.path().join("none"));
        assert!(missing_dir.open_newest(&budget("town"), CSV).unwrap().is_none());
        let before = fixture.publish("town", 1, 10, "before");
        let newer = fixture.publish("town", 2, 20, "newer");
        let is_before = || assert_eq!(fixture.newest("town").as_deref(), Some("before"));
        // Another attempt has replaced the file but not its manifest: by content of the same length, then of another.
        for rows in [&b"other"[..], b"others"] {
            fixture.write(&newer, 21, rows);
            is_before();
        }
        fs::write(manifest_path(&newer), "no manifest").unwrap();
        is_before();
        fs::remove_file(&newer).unwrap();
        is_before();
        let hidden =
            fixture.exports.path(&budget("town"), JobId(Uuid::nil()), CSV, Audience::Operators);
        fs::rename(&before, &hidden).unwrap();
        fs::rename(manifest_path(&before), manifest_path(&hidden)).unwrap();
        assert_eq!(fixture.newest("town"), None);
    }

    #[test]
    fn only_older_exports_of_the_same_budget_are_deleted() {
        let fixture = Fixture::new();
        fixture.publish("town", 1, 10, "older");
        fixture.publish("town-hall", 2, 10, "another");
        let this = fixture.publish("town", 3, 20, "this");
        let later = fixture.publish("town", 4, 30, "later");
        fixture.exports.delete_older_than(&this, &budget("town"), CSV).unwrap();
        let left = fs::read_dir(fixture.exports.dir(Audience::Everybody)).unwrap().count();
        assert_eq!((left, this.exists(), later.exists()), (6, true, true));
        assert_eq!(fixture.newest("town-hall").as_deref(), Some("another"));
    }
}
