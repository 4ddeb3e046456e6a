//! The peers: Python programs of ours (`e2e/peers`) over packages with pinned versions, in an environment outside the repository.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result};

use crate::{program::Program, tools};

const INSTALL_TIMEOUT: Duration = Duration::from_mins(10);

/// The environment with the peers' packages.
pub struct Peers {
    environment: PathBuf,
    programs: PathBuf,
}

impl Peers {
    /// Installs what is missing; the folder's name follows the pinned versions.
    pub fn provide() -> Result<Self> {
        Self::provide_of("requirements.txt")
    }

    /// The same for a peer with packages of its own.
    pub fn provide_of(requirements: &str) -> Result<Self> {
        let programs = tools::repository()?.join("e2e/peers");
        let requirements = programs.join(requirements);
        let sum = tools::sha256(&[&requirements])?;
        let hash = sum.get(..12).context("sha256sum printed no hash")?;
        let environment = tools::cache()?.join(format!("peers-{hash}"));
        let peers = Self { environment, programs };
        let finished = peers.environment.join("finished");
        if !finished.exists() {
            println!("      the peers are installed into {}", peers.environment.display());
            let folder = peers.environment.as_os_str();
            Program::new("python3", ["-m".as_ref(), "venv".as_ref(), folder]).run()?;
            Program::new(
                peers.environment.join("bin/pip"),
                ["install", "--quiet", "--requirement"],
            )
            .and([&requirements])
            .timeout(INSTALL_TIMEOUT)
            .run()
            .context("the peers cannot be installed")?;
            fs::write(&finished, "")?;
        }
        Ok(peers)
    }

    /// A program of the environment, such as `uvicorn`, in the folder of our peers.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.environment.join("bin").join(program));
        command.current_dir(&self.programs).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}
