//! Measuring alone: a benchmark excludes every other qpipe on this machine from its device.

use std::fs::{File, TryLockError};
use std::path::PathBuf;

use qpipe_nodes::protocol::Device;

/// Held while a node computes. The lock belongs to the process and dies with it.
pub(super) struct DeviceLock {
    _file: Option<File>,
}

/// Takes the device if it is free: shared by ordinary nodes, exclusive for measured ones. Where no lock file can
/// be made, nodes run unprotected rather than not at all.
pub(super) fn try_acquire(device: Device, exclusive: bool) -> Option<DeviceLock> {
    let locked = open(device).and_then(|file| {
        match if exclusive { file.try_lock() } else { file.try_lock_shared() } {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    });
    match locked {
        Ok(None) => None,
        Ok(file) => Some(DeviceLock { _file: file }),
        Err(error) => {
            tracing::warn!("no lock on the device: {error}");
            Some(DeviceLock { _file: None })
        }
    }
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
