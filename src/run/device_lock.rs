//! Measuring alone: a benchmark excludes every other qpipe on this machine from its device.

use std::fs::File;
use std::path::PathBuf;

use qpipe_nodes::protocol::Device;

/// Held while a node computes. The lock belongs to the process and dies with it.
pub(super) struct DeviceLock {
    _file: Option<File>,
}

/// Waits for the device: shared by ordinary nodes, exclusive for measured ones. Where no lock file can be
/// made, nodes run unprotected rather than not at all.
pub(super) fn acquire(device: Device, exclusive: bool) -> DeviceLock {
    let file = open(device).and_then(|file| {
        let locked = if exclusive { file.lock() } else { file.lock_shared() };
        locked.map(|()| file)
    });
    if let Err(error) = &file {
        tracing::warn!("no lock on the device: {error}");
    }
    DeviceLock { _file: file.ok() }
}

fn open(device: Device) -> std::io::Result<File> {
    let name = match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda{index}"),
    };
    let user = rustix::process::getuid().as_raw();
    let folder: PathBuf = std::env::temp_dir().join(format!("qpipe-{user}"));
    std::fs::create_dir_all(&folder)?;
    File::options().create(true).truncate(false).write(true).open(folder.join(format!("{name}.lock")))
}
