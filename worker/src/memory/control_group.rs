//! What the process's control group leaves it of memory (version 2 of Linux's control groups).

use std::path::Path;

use fs_err as fs;

/// Where control groups are folders. Inside a namespace of control groups the first is the namespace's own.
const ROOT: &str = "/sys/fs/cgroup";

/// Bytes that the process's control group and those around it leave, by the one that leaves the least. `None` where none
/// has a limit.
pub(super) fn left_bytes() -> Option<u64> {
    left_of(Path::new(ROOT), &fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The same of the group that `memberships` names, a line for each hierarchy: that of version 2 is `0::PATH`. A path that is
/// not below `root`, as in a container that sees its own group alone, counts as `root`.
fn left_of(root: &Path, memberships: &str) -> Option<u64> {
    let path = memberships.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = root.join(path.trim_start_matches('/'));
    own.ancestors().take_while(|group| group.starts_with(root)).filter_map(left_in).min()
}

/// Bytes that the group in the folder `group` alone leaves; its limit may be `max`. Pages of files, which the system takes back where it needs
/// them, are left, as in MemAvailable.
fn left_in(group: &Path) -> Option<u64> {
    let bytes = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let (most, now) = (bytes("memory.max")?, bytes("memory.current")?);
    let counts = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let of_files = |name: &str| {
        let count = counts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        count.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let pages = of_files("inactive_file") + of_files("active_file");
    Some(most.saturating_sub(now.saturating_sub(pages)))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Groups by their paths, each with its limit and what it uses.
    fn tree(groups: &[(&str, &str, u64)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, most, now) in groups {
            let folder = root.path().join(path);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("memory.max"), format!("{most}\n")).unwrap();
            fs::write(folder.join("memory.current"), format!("{now}\n")).unwrap();
        }
        root
    }

    #[test]
    fn the_narrowest_of_the_groups_around_a_process_counts() {
        // The root of the whole system has no such files.
        let groups = tree(&[
            ("user.slice", "1000", 300),
            ("user.slice/session.scope", "max", 200),
            ("user.slice/session.scope/run", "500", 100),
            ("system.slice", "10", 0),
        ]);
        let left = |memberships: &str| left_of(groups.path(), memberships);
        assert_eq!(left("0::/user.slice/session.scope/run\n"), Some(400));
        assert_eq!(left("1:cpu:/system.slice\n0::/user.slice/session.scope\n"), Some(700));
        assert_eq!(left("0::/\n"), None);
        assert_eq!(left("4:memory:/user.slice\n"), None, "version 1");
    }

    #[test]
    fn pages_of_files_are_left() {
        let groups = tree(&[("", "800", 700)]);
        fs::write(
            groups.path().join("memory.stat"),
            "anon 300\nfile 400\ninactive_file 250\nactive_file 150\n",
        )
        .unwrap();
        assert_eq!(left_of(groups.path(), "0::/\n"), Some(500));
    }

    #[test]
    fn a_namespace_shows_its_own_group_as_the_root() {
        let groups = tree(&[("", "800", 300)]);
        assert_eq!(left_of(groups.path(), "0::/\n"), Some(500));
        // Without a namespace, and nothing but that group in sight.
        assert_eq!(left_of(groups.path(), "0::/docker/1f2e\n"), Some(500));
        assert_eq!(left_of(groups.path(), "0::/../other\n"), Some(500));
    }

    #[test]
    fn a_group_above_its_limit_leaves_nothing() {
        let groups = tree(&[("a", "100", 120)]);
        assert_eq!(left_of(groups.path(), "0::/a\n"), Some(0));
    }
}
