//! The seccomp profile and its place on the node.
//!
//! It is containerd's default profile for a process without capabilities, plus what Chromium's sandbox needs: new user, PID and
//! network namespaces, and chroot inside them. New mount, UTS, IPC and cgroup namespaces stay closed, and clone3, whose flags a filter
//! cannot read, answers ENOSYS, so that callers fall back to clone.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Where the profile lies below the kubelet's seccomp folder: what a pod names as `localhostProfile`.
pub const LOCALHOST_PROFILE: &str = "profiles/selextract-chromium.json";
const CONTENT: &str = include_str!("../../../profiles/selextract-chromium.json");

/// Makes the profile be there. Says whether it had to write it.
pub fn install(seccomp_dir: &Path) -> io::Result<bool> {
    let file = seccomp_dir.join(LOCALHOST_PROFILE);
    if fs::read(&file).is_ok_and(|content| content == CONTENT.as_bytes()) {
        return Ok(false);
    }
    let folder = file.parent().unwrap_or(seccomp_dir);
    fs::create_dir_all(folder)?;
    let next = folder.join(format!(".selextract-chromium.json.{}", std::process::id()));
    let written = write(&next).and_then(|()| fs::rename(&next, &file));
    if written.is_err() {
        // The reason of the failure is what the caller must see, not that there is nothing to clear.
        let _ = fs::remove_file(&next);
    }
    written.map(|()| true)
}

fn write(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(CONTENT.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_profile_is_written_once_and_put_back_when_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(install(folder.path()).unwrap());
        assert!(!install(folder.path()).unwrap());
        let file = folder.path().join(LOCALHOST_PROFILE);
        fs::write(&file, "{}").unwrap();
        assert!(install(folder.path()).unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), CONTENT);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        let left: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "a temporary file stayed: {left:?}");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("profiles"), "a file where a folder must be").unwrap();
        assert!(install(folder.path()).is_err());
    }

    #[test]
    fn what_is_not_named_is_denied_and_mount_is_not_named() {
        let profile: Value = serde_json::from_str(CONTENT).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let rules = profile["syscalls"].as_array().unwrap();
        let rules_for = |name: &str| -> Vec<&Value> {
            rules
                .iter()
                .filter(|rule| rule["names"].as_array().unwrap().iter().any(|n| n == name))
                .collect()
        };
        for name in [
            "mount",
            "umount2",
            "bpf",
            "pivot_root",
            "open_by_handle_at",
            "keyctl",
            "kexec_load",
            "init_module",
            "reboot",
        ] {
            assert!(rules_for(name).is_empty(), "{name}");
        }
        assert_eq!(rules_for("clone3")[0]["errnoRet"], 38);
        for name in ["clone", "unshare"] {
            let rules = rules_for(name);
            assert_eq!(rules.len(), 1, "{name}");
            let forbidden = rules[0]["args"][0]["value"].as_u64().unwrap();
            assert_eq!(rules[0]["args"][0]["op"], "SCMP_CMP_MASKED_EQ");
            let (mount, uts, ipc, cgroup) = (0x0002_0000, 0x0400_0000, 0x0800_0000, 0x0200_0000);
            assert_eq!(
                forbidden,
                mount | uts | ipc | cgroup,
                "user, PID and network namespaces are open, the others are not"
            );
        }
    }
}
