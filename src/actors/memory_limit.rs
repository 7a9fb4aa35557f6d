//! How much memory the process may have.
//!
//! Owns: what its control groups say (cgroups(7), both versions). Does not own: what the process holds.

use std::path::Path;

/// `machine`, or less where a control group of the process, or one around it, allows less; in bytes. The files are looked for
/// below `root`. What cannot be read limits nothing.
pub(super) fn least(root: &Path, machine: u64) -> u64 {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let places = groups.lines().filter_map(place);
    let limits = places.flat_map(|(mount, path, file)| {
        // Within a container the names are often those of the host, and what is mounted is the group itself.
        let around = Path::new(path).ancestors();
        around.filter_map(move |group| {
            let limit = std::fs::read_to_string(root.join(mount).join(group).join(file)).ok()?;
            // Without a limit it is "max", or more than any machine has.
            limit.trim().parse::<u64>().ok()
        })
    });
    limits.fold(machine, u64::min)
}

/// Of a line like `0::/system.slice/pairdb-node.service` or `5:memory:/docker/1f2e`: where the hierarchy is mounted, the group's
/// path in it, and the file with its limit.
fn place(line: &str) -> Option<(&'static str, &str, &'static str)> {
    let mut parts = line.splitn(3, ':');
    let (_number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let path = path.trim_start_matches('/');
    if controllers.is_empty() {
        Some(("sys/fs/cgroup", path, "memory.max"))
    } else if controllers.split(',').any(|controller| controller == "memory") {
        Some(("sys/fs/cgroup/memory", path, "memory.limit_in_bytes"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_with(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        least(root.path(), 1000)
    }

    #[test]
    fn the_tightest_of_the_groups_around_the_process_limits_it() {
        let own = ("proc/self/cgroup", "0::/system.slice/node.service\n");
        let of_node = "sys/fs/cgroup/system.slice/node.service/memory.max";
        let of_slice = "sys/fs/cgroup/system.slice/memory.max";
        assert_eq!(limit_with(&[]), 1000, "without groups");
        assert_eq!(limit_with(&[own, (of_node, "max\n")]), 1000, "without a limit");
        assert_eq!(limit_with(&[own, (of_node, "700\n")]), 700, "its own");
        assert_eq!(limit_with(&[own, (of_node, "5000\n")]), 1000, "the machine has less");
        assert_eq!(
            limit_with(&[own, (of_node, "700\n"), (of_slice, "600\n")]),
            600,
            "around it"
        );
        let other = "sys/fs/cgroup/user.slice/memory.max";
        assert_eq!(limit_with(&[own, (other, "5\n")]), 1000, "another's");
    }

    #[test]
    fn the_group_that_is_mounted_in_a_container_limits_it() {
        let alone = ("proc/self/cgroup", "0::/\n");
        assert_eq!(limit_with(&[alone, ("sys/fs/cgroup/memory.max", "700\n")]), 700);
        let named_by_the_host = ("proc/self/cgroup", "0::/kubepods/pod1/2f\n");
        assert_eq!(
            limit_with(&[named_by_the_host, ("sys/fs/cgroup/memory.max", "700\n")]),
            700
        );
    }

    #[test]
    fn groups_of_the_first_version_limit_it() {
        let groups = ("proc/self/cgroup", "6:cpu,cpuacct:/a\n5:memory:/docker/1f\nnonsense\n");
        let limit = "sys/fs/cgroup/memory/docker/1f/memory.limit_in_bytes";
        assert_eq!(limit_with(&[groups, (limit, "700\n")]), 700);
        assert_eq!(limit_with(&[groups, (limit, "9223372036854771712\n")]), 1000);
        assert_eq!(
            limit_with(&[groups, ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5\n")]),
            1000
        );
    }
}
