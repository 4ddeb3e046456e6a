//! An object store that speaks S3 and checks signatures, built from `objects/` once into the cache.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    PASSWORD,
    process::{self, Process},
};

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// An object store with one empty bucket, of one test's own.
#[derive(Debug)]
pub struct ObjectStore {
    address: SocketAddr,
    tls: bool,
    process: Process,
    _folder: TempDir,
}

impl ObjectStore {
    /// The bucket.
    pub const BUCKET: &str = "artifacts";
    /// Who may open it; the secret key is [`PASSWORD`].
    pub const ACCESS_KEY_ID: &str = "tests";

    /// Starts one, with TLS by this certificate and key (PEM) where they are given.
    ///
    /// # Errors
    /// When Go is missing, or the program does not start.
    pub fn start(tls: Option<(&str, &str)>) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, tls)
    }

    /// Starts one that listens at another address of this machine.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_at(ip: Ipv4Addr, tls: Option<(&str, &str)>) -> Result<Self> {
        let program = program()?;
        let folder = tempfile::tempdir()?;
        let address = SocketAddr::from((ip, process::free_port()?));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
            .env("OBJECTS_ADDRESS", address.to_string())
            .env("OBJECTS_BUCKET", Self::BUCKET)
            .env("OBJECTS_ACCESS_KEY_ID", Self::ACCESS_KEY_ID)
            .env("OBJECTS_SECRET_ACCESS_KEY", PASSWORD);
        if let Some((certificate, key)) = tls {
            for (variable, name, text) in [
                ("OBJECTS_TLS_CERT", "cert", certificate),
                ("OBJECTS_TLS_KEY", "key", key),
            ] {
                fs::write(folder.path().join(name), text)?;
                command.env(variable, folder.path().join(name));
            }
        }
        let log = folder.path().join("log");
        let process = Process::spawn(command, &log)?;
        process::wait_for_address(START_TIMEOUT, "the object store", address, &log)?;
        Ok(Self {
            address,
            tls: tls.is_some(),
            process,
            _folder: folder,
        })
    }

    /// Where it is reached.
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Its process, to freeze, thaw or kill.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The program, as it is when it was built from these sources, else built anew. Two at once wait for each other.
fn program() -> Result<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("objects");
    let folder = cache()?.join("test-programs");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("the lock of the test programs")?;
    let mut hasher = DefaultHasher::new();
    for name in ["main.go", "go.mod", "go.sum"] {
        fs::read(sources.join(name))
            .with_context(|| format!("reading objects/{name}"))?
            .hash(&mut hasher);
    }
    let program = folder.join(format!("objects-{:016x}", hasher.finish()));
    if program.is_file() {
        return Ok(program);
    }
    let partial = program.with_extension("partial");
    let built = Command::new("go")
        .args(["build", "-trimpath", "-o"])
        .arg(&partial)
        .arg(".")
        .current_dir(sources)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .output()
        .context("running go")?;
    ensure!(
        built.status.success(),
        "go build: {}",
        String::from_utf8_lossy(&built.stderr)
    );
    fs::rename(partial, &program)?;
    Ok(program)
}

fn cache() -> Result<PathBuf> {
    let named = |name: &str| env::var_os(name).filter(|value: &OsString| !value.is_empty());
    if let Some(folder) = named("SELEXTRACT_CACHE") {
        return Ok(folder.into());
    }
    let home = named("HOME").context("neither SELEXTRACT_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/selextract"))
}
