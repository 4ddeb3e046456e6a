//! Chromium's processes: started in a group and a profile of their own, and all of them ended together.

use std::{
    collections::VecDeque,
    fs, io,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use snafu::{OptionExt, ResultExt};
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, Command},
    sync::oneshot,
    time::timeout,
};

use super::{
    BrowserError, BrowserSettings, ComeUpSnafu, Kind, StartSnafu, flags::command_line, group::Group, sieve::Sieve,
};

const PREFIX: &str = "selextract-browser-";
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How much of what it said last is kept.
const LOG_BYTES: usize = 8 << 10;
const ANNOUNCEMENT: &str = "DevTools listening on ";

/// A running Chromium. Dropping it kills the group.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) group: Group,
    /// What its DevTools say.
    pub(super) sieve: Option<Sieve>,
    pub(super) log: Log,
    profile: Option<TempDir>,
}

/// What it said last on standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<VecDeque<u8>>>);

impl Process {
    /// Starts a browser and waits for its DevTools.
    pub(super) async fn launch(kind: Kind, settings: &BrowserSettings) -> Result<Self, BrowserError> {
        let program = &settings.program;
        let profile = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir()
            .context(StartSnafu { program })?;
        let mut child = command(kind, settings, &profile)
            .spawn()
            .context(StartSnafu { program })?;
        let group = child.id().and_then(Group::new).context(ComeUpSnafu {
            message: "it ended at once",
        })?;
        let (found, devtools) = oneshot::channel();
        let log = Log::default();
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(listen(stderr, log.clone(), found));
        }
        let mut process = Self {
            child,
            group,
            sieve: None,
            log,
            profile: Some(profile),
        };
        // Also when it ends by itself: then standard error closes.
        match timeout(START_TIMEOUT, devtools).await {
            Ok(Ok(devtools)) => {
                let sieve = Sieve::before(&devtools).await;
                process.sieve = Some(sieve.context(StartSnafu { program })?);
            }
            _ => {
                return ComeUpSnafu {
                    message: process.log.tail(),
                }
                .fail();
            }
        }
        Ok(process)
    }

    /// Kills the group, reaps the main process and removes the profile.
    pub(super) async fn end(mut self) {
        self.group.kill();
        let _ = timeout(Duration::from_secs(5), self.child.wait()).await;
        if let Some(profile) = self.profile.take() {
            let removed = tokio::task::spawn_blocking(move || remove(profile)).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(%error, "A browser's profile could not be removed.");
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.group.kill();
    }
}

impl Log {
    pub(super) fn tail(&self) -> String {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: Vec<u8> = log.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    fn push(&self, bytes: &[u8]) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend(bytes);
        let surplus = log.len().saturating_sub(LOG_BYTES);
        log.drain(..surplus);
    }
}

fn command(kind: Kind, settings: &BrowserSettings, profile: &TempDir) -> Command {
    let mut command = Command::new(&settings.program);
    command
        .args(command_line(kind, settings, profile.path()))
        // The worker's environment holds passwords, and could name another proxy.
        .env_clear()
        .env("HOME", profile.path())
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LANG", "C.UTF-8")
        .env("TMPDIR", profile.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Keeps the tail of standard error, and tells the DevTools' address when it comes.
async fn listen(mut stderr: ChildStderr, log: Log, found: oneshot::Sender<String>) {
    let mut found = Some(found);
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        log.push(buffer.get(..count).unwrap_or_default());
        if found.is_some()
            && let Some(address) = announced(&log.tail())
            && let Some(found) = found.take()
        {
            let _ = found.send(address);
        }
    }
}

fn announced(log: &str) -> Option<String> {
    let (_, rest) = log.split_once(ANNOUNCEMENT)?;
    // The address ends with the browser's UUID; half a line may have come.
    let address = rest.split_ascii_whitespace().next()?;
    let (_, id) = address.rsplit_once('/')?;
    (id.len() == 36).then(|| address.to_owned())
}

/// A process that is being killed may still write into it for a moment.
fn remove(profile: TempDir) -> io::Result<()> {
    let path = profile.keep();
    let mut last = Ok(());
    for _ in 0..20 {
        last = fs::remove_dir_all(&path);
        match &last {
            Err(error) if error.kind() != io::ErrorKind::NotFound => std::thread::sleep(Duration::from_millis(50)),
            _ => return Ok(()),
        }
    }
    last
}

/// Removes the profiles of workers that were killed: `/tmp` outlives a container's restart. For the start of a program, which has
/// none of its own yet (a restarted container's program often has the same process id).
pub fn remove_leftovers() {
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
    {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|id| id.parse::<u32>().ok());
        if owner.is_some_and(|id| id == std::process::id() || !fs::exists(format!("/proc/{id}")).unwrap_or(true)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_only_when_all_of_it_has_come() {
        let line = "[1:1] noise\n\nDevTools listening on ws://127.0.0.1:4242/devtools/browser/0b7e8b4c-9f9f-4d6e-8c57-2f0a5c1d2e3f\n";
        assert_eq!(
            announced(line).unwrap(),
            "ws://127.0.0.1:4242/devtools/browser/0b7e8b4c-9f9f-4d6e-8c57-2f0a5c1d2e3f"
        );
        assert_eq!(announced(&line[..70]), None);
        assert_eq!(announced("DevTools listening on "), None);
    }

    #[test]
    fn only_the_end_of_the_log_is_kept() {
        let log = Log::default();
        log.push(&[b'a'; LOG_BYTES]);
        log.push(b"end");
        assert_eq!(log.tail().len(), LOG_BYTES);
        assert!(log.tail().ends_with("aend"));
    }

    #[test]
    fn the_profile_of_a_worker_that_was_killed_goes_when_the_next_one_starts() {
        let temporary = std::env::temp_dir();
        // No process has this id: it is above the kernel's largest.
        let orphan = temporary.join("selextract-browser-4194999-orphan");
        let living = temporary.join("selextract-browser-1-living");
        for folder in [&orphan, &living] {
            fs::create_dir_all(folder.join("Default")).unwrap();
        }
        remove_leftovers();
        let (orphaned, lived) = (orphan.exists(), living.exists());
        fs::remove_dir_all(living).unwrap();
        assert!(!orphaned && lived);
    }
}
