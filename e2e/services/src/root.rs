//! The root file system of an image on this machine, and programs run inside it.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail, ensure};

use crate::process::Process;

/// The user of the product's images.
const USER: u32 = 65532;
/// Where the folders of running tests lie inside the root.
const FOLDERS: &str = "srv/tests";

/// An image's root file system that was prepared for `chroot`.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
}

impl Root {
    /// Finds and prepares the data image's root, and removes what tests that are gone have left in it.
    pub(crate) fn open() -> Result<Self> {
        let root = Self { path: find("data")? };
        root.make_devices()?;
        root.remove_leftovers()?;
        Ok(root)
    }

    /// A new folder inside the root that the image's user may write.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self
            .path
            .join(FOLDERS)
            .join(format!("{}-{name}-{count}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        chown(&path, Some(USER), Some(USER))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }

    /// The path of a folder as programs inside the root see it.
    pub(crate) fn inside(&self, folder: &Path) -> String {
        let relative = folder.strip_prefix(&self.path).unwrap_or(folder);
        format!("/{}", relative.display())
    }

    /// Runs a program to its end and returns its standard output.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(arguments)
            .stdin(Stdio::null())
            .output()
            .context("running chroot")?;
        ensure!(
            output.status.success(),
            "{} failed: {}",
            arguments.first().copied().unwrap_or_default(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs a program to its end and returns everything that it said; a refusal is told with all of it.
    pub(crate) fn run_telling(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(arguments)
            .stdin(Stdio::null())
            .output()
            .context("running chroot")?;
        let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        ensure!(
            output.status.success(),
            "{} said no: {}",
            arguments.join(" "),
            said.concat()
        );
        Ok(said.concat())
    }

    /// Whether the root holds this file.
    pub(crate) fn holds(&self, path: &str) -> bool {
        self.path.join(path).exists()
    }

    /// Starts a program that ends with this one.
    pub(crate) fn spawn(&self, arguments: &[&str], log: &Path) -> Result<Process> {
        Process::spawn(self.command(arguments), log)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // The signal at the parent's death reaches the program through setpriv and chroot, which both exec it.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "chroot"])
            .arg(format!("--userspec={USER}:{USER}"))
            .arg(&self.path)
            .args(["/usr/bin/setpriv", "--pdeathsig", "KILL"])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8");
        command
    }

    fn make_devices(&self) -> Result<()> {
        for (name, minor) in [("null", "3"), ("zero", "5"), ("random", "8"), ("urandom", "9")] {
            let path = self.path.join("dev").join(name);
            if fs::metadata(&path).is_ok_and(|m| m.file_type().is_char_device()) {
                continue;
            }
            let _ = fs::remove_file(&path);
            let made = Command::new("mknod")
                .args(["-m", "666"])
                .arg(&path)
                .args(["c", "1", minor])
                .output()?;
            // Another test program may have been first.
            ensure!(
                made.status.success() || path.exists(),
                "mknod {}: are you root?",
                path.display()
            );
        }
        Ok(())
    }

    fn remove_leftovers(&self) -> Result<()> {
        let folders = self.path.join(FOLDERS);
        fs::create_dir_all(&folders)?;
        for entry in fs::read_dir(&folders)? {
            let entry = entry?;
            let name = entry.file_name();
            let pid = name.to_str().and_then(|n| n.split('-').next()).unwrap_or_default();
            if !Path::new("/proc").join(pid).exists() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }
}

/// The root of the image with this name.
pub(crate) fn find(name: &str) -> Result<PathBuf> {
    let variable = format!("SELEXTRACT_{}_ROOT", name.to_uppercase());
    if let Some(path) = env::var_os(&variable) {
        return Ok(path.into());
    }
    let cache = env::var_os("SELEXTRACT_CACHE").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/selextract"),
        PathBuf::from,
    );
    let roots = cache.join("roots");
    let newest = fs::read_dir(&roots)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| is_root_of(&entry.file_name(), name))
        .max_by_key(|entry| entry.metadata().and_then(|m| m.modified()).ok());
    match newest {
        Some(entry) => Ok(entry.path()),
        None => bail!(
            "no root of the {name} image in {}: make one with images/build --root {name}",
            roots.display()
        ),
    }
}

fn is_root_of(folder: &OsStr, name: &str) -> bool {
    folder
        .to_str()
        .and_then(|folder| folder.strip_prefix(name))
        .is_some_and(|hash| {
            hash.strip_prefix('-')
                .is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
        })
}
