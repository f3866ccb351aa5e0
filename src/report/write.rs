//! Writes `results/NAME/`.

use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::ReportError;
use super::comparison::Comparison;
use super::markdown::{self, MARKDOWN_FILE};
use super::names::{Named, RowName};
use super::results_json::{RESULTS_FILE, Results};

/// Name of the folder of answers in `results/NAME/`.
pub const SAMPLES_FOLDER: &str = "samples";

/// What [`write()`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The files that were missing or differed, in the order in which they were written.
    pub files: Vec<PathBuf>,
}

impl Written {
    /// Whether anything was written.
    pub fn changed(&self) -> bool {
        !self.files.is_empty()
    }
}

/// Writes `results.json`, `report.md` and `samples/INSTANCE.jsonl` into the folder `out`. `names` and
/// `samples` (the files of answers) are in the order of the rows. The document's heading is the comparison's title, else the folder's name.
///
/// Only what is missing or differs is written; each file appears whole or not at all. Answers of rows that are no
/// longer there are removed.
///
/// # Errors
/// [`ReportError::Names`] when `names` or `samples` are not the comparison's rows; I/O errors with the path.
pub fn write(
    comparison: &Comparison,
    names: &[RowName],
    samples: &[PathBuf],
    out: &Path,
) -> Result<Written, ReportError> {
    let rows = comparison.rows.len();
    if names.len() != rows || samples.len() != rows {
        return Err(ReportError::Names { names: names.len(), samples: samples.len(), rows });
    }
    let named = Named::new(comparison, names);
    let mut written = Written::default();
    let folder = out.join(SAMPLES_FOLDER);
    fs::create_dir_all(&folder)?;
    for (name, source) in names.iter().zip(samples) {
        let path = folder.join(sample_file(&name.instance));
        if !same_content(source, &path)? {
            replace(&path, &mut fs::File::open(source)?)?;
            written.files.push(path);
        }
    }
    remove_others(&folder, names)?;
    let folder_name = out.file_name().map_or_else(|| "Report".into(), |name| name.to_string_lossy());
    let heading = if comparison.title.is_empty() { &folder_name } else { comparison.title.as_str() };
    for (file, text) in
        [(MARKDOWN_FILE, markdown::render(&named, heading)), (RESULTS_FILE, Results::new(&named).to_json()?)]
    {
        let path = out.join(file);
        if !holds(&path, text.as_bytes())? {
            replace(&path, &mut text.as_bytes())?;
            written.files.push(path);
        }
    }
    Ok(written)
}

/// The file name for an instance's answers. A matrix value may hold a separator, which must not open a folder.
fn sample_file(instance: &str) -> String {
    format!("{}.jsonl", instance.replace('/', "%2F"))
}

fn holds(path: &Path, expected: &[u8]) -> io::Result<bool> {
    match fs::read(path) {
        Ok(content) => Ok(content == expected),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the file at `copy` is there and has the bytes of `source`. Lengths are compared first.
fn same_content(source: &Path, copy: &Path) -> io::Result<bool> {
    let length = match fs::metadata(copy) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if fs::metadata(source)?.len() != length {
        return Ok(false);
    }
    Ok(fs::read(source)? == fs::read(copy)?)
}

/// Puts `content` at `path` through a temporary file beside it.
fn replace(path: &Path, content: &mut impl Read) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("failed to write `{}`: {error}", path.display()))
    };
    let mut temporary = tempfile::Builder::new()
        .prefix(".qpipe-")
        .permissions(shared())
        .tempfile_in(folder)
        .map_err(named)?;
    io::copy(content, temporary.as_file_mut()).map_err(named)?;
    temporary.as_file_mut().flush().map_err(named)?;
    temporary.persist(path).map_err(|error| named(error.error))?;
    Ok(())
}

/// Removes answers of rows that the report no longer has: their names would mislead.
fn remove_others(folder: &Path, names: &[RowName]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let of_row = |row: &RowName| *name == *sample_file(&row.instance);
        if Path::new(&name).extension().is_some_and(|extension| extension == "jsonl")
            && !names.iter().any(of_row)
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Readable for others, as far as the umask allows: temporary files are private by default.
fn shared() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::Permissions::from_mode(0o666)
}
