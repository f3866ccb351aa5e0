//! What most commands begin with: the environment, the pipeline and the store.

use std::path::{Path, PathBuf};

use clap::Args;
use qpipe_cache::Store;

use super::failure::Failure;
use crate::pipeline::Pipeline;
use crate::plan::check_environment;

/// A pipeline file and its parameters.
#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// The pipeline file.
    pub(super) file: PathBuf,
    /// Sets a parameter of the file: `calib=[20]`. The value is YAML.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    sets: Vec<String>,
}

impl FileArgs {
    /// Reads and checks the file.
    pub(super) fn load(&self) -> Result<Pipeline, Failure> {
        let sets = self
            .sets
            .iter()
            .map(|set| match set.split_once('=') {
                Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
                None => Err(Failure::usage(format!("`--set {set}` is not of the form NAME=VALUE"))),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Pipeline::load(&self.file, &sets).map_err(Failure::pipeline)
    }
}

/// Refuses a variable that says nothing nodes could heed.
pub(super) fn environment() -> Result<(), Failure> {
    check_environment().map_err(|error| Failure::environment(error.to_string(), Some(&error.help())))
}

/// The store of the working directory: QPIPE_CACHE, else the first `.qpipe` upward, else made here.
pub(super) fn store() -> Result<Store, Failure> {
    Store::discover(Path::new(".")).map_err(|error| Failure::store(&error))
}
