//! A service's process: started from a thread that outlives every test, ended with the test program.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// A running service. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Child>,
    id: u32,
}

type Request = (Command, Sender<std::io::Result<Child>>);

impl Process {
    pub(crate) fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let (reply, answer) = channel();
        spawner()
            .lock()
            .map_err(|_| anyhow::anyhow!("the spawning thread is gone"))?
            .send((command, reply))
            .context("the spawning thread is gone")?;
        let child = answer
            .recv()
            .context("the spawning thread is gone")?
            .context("starting setpriv")?;
        Ok(Self {
            id: child.id(),
            child: Mutex::new(child),
        })
    }

    /// Its number in `/proc`, from which its children are found.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Stops it from running (`SIGSTOP`), as a hung machine would.
    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// Asks it to end (`SIGINT`).
    pub fn interrupt(&self) -> Result<()> {
        self.signal("INT")
    }

    /// Whether it ends by itself within this time.
    pub fn ends_within(&self, limit: Duration) -> Result<bool> {
        let started = Instant::now();
        loop {
            let mut child = self.child.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
            if child.try_wait()?.is_some() {
                return Ok(true);
            }
            drop(child);
            if started.elapsed() > limit {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it without warning and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.id.to_string())
            .status()?;
        ensure!(status.success(), "kill -{name} {}", self.id);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The signal at the parent's death is bound to the thread that forked, so one thread that never ends does all of it.
fn spawner() -> &'static Mutex<Sender<Request>> {
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, reply) in requests {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    })
}

/// A port of loopback that nobody listens on just now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

pub(crate) fn wait_for_port(limit: Duration, what: &str, port: u16, log: &Path) -> Result<()> {
    wait_for_address(limit, what, (Ipv4Addr::LOCALHOST, port).into(), log)
}

pub(crate) fn wait_for_address(limit: Duration, what: &str, address: SocketAddr, log: &Path) -> Result<()> {
    wait_until(limit, what, log, || {
        TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
    })
}

pub(crate) fn wait_until(limit: Duration, what: &str, log: &Path, mut ready: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !ready() {
        if started.elapsed() > limit {
            let log = fs::read_to_string(log).unwrap_or_default();
            bail!("{what} did not start within {} s; its log: {log}", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
