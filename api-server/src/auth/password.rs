//! Passwords: Argon2id behind a bounded queue.
//!
//! A hash costs about 20 ms of one core and 19 MiB, so unbounded logins would be a denial of service of their own: at most one hash runs per
//! core, a short queue waits, and the rest is told to come back, before anything else is done for it. The hashes run on threads of their
//! own with a lower priority than everything else, so that other requests do not wait for logins. Each thread keeps its arena: allocating
//! 19 MiB each time costs half as much again.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use rand::RngCore;
use rustix::process::setpriority_process;
use snafu::{ResultExt, Snafu};
use subtle::ConstantTimeEq;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Waiting logins for each running one: ten times 20 ms keeps a login inside the guide's 200 ms.
const QUEUE_PER_CORE: usize = 10;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);
/// OWASP's second recommendation for Argon2id, in KiB.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const HASH_BYTES: usize = 32;
/// As nice as `nice` makes a program: a seventh of the weight of the threads that serve requests.
const NICENESS: i32 = 10;

/// Why a password could not be checked or hashed.
#[derive(Debug, Snafu)]
pub enum PasswordError {
    /// More logins wait than the server can check in time.
    #[snafu(display("too many passwords wait to be checked"))]
    Busy,
    /// The hash could not be computed.
    #[snafu(display("hashing a password failed: {reason}"))]
    Hash {
        /// What the library said; it never holds the password.
        reason: String,
    },
    /// Hashing broke off.
    #[snafu(display("hashing a password broke off"))]
    BrokeOff {
        /// The thread let go of it.
        source: oneshot::error::RecvError,
    },
    /// The threads that hash could not be started.
    #[snafu(display("a thread that hashes passwords cannot be started"))]
    Thread {
        /// Why.
        source: std::io::Error,
    },
}

/// Checks and hashes passwords, a bounded number at a time.
#[derive(Clone, Debug)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    admitted: Arc<Semaphore>,
    jobs: Sender<Job>,
    /// The hash that a password of an unknown user is checked against, so that it takes as long.
    dummy: String,
}

/// What a thread does with its arena.
type Job = Box<dyn FnOnce(&mut [Block]) + Send>;

/// A place in the queue.
#[derive(Debug)]
pub struct Admission {
    _place: OwnedSemaphorePermit,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("admitted", &self.admitted)
            .finish_non_exhaustive()
    }
}

impl Passwords {
    /// As many at a time as there are `cores`.
    pub fn new(cores: usize) -> Result<Self, PasswordError> {
        let mut random = [0; 16];
        rand::rng().fill_bytes(&mut random);
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..cores {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new()
                .name("passwords".to_owned())
                .spawn(move || do_jobs(&waiting))
                .context(ThreadSnafu)?;
        }
        Ok(Self(Arc::new(Inner {
            admitted: Arc::new(Semaphore::new(cores * QUEUE_PER_CORE)),
            jobs,
            dummy: hash(&random, &mut arena())?,
        })))
    }

    /// A place in the queue, or the word that it is full. It costs nothing, so it comes before everything else that a login needs.
    pub fn admit(&self) -> Result<Admission, PasswordError> {
        let place = self.0.admitted.clone().try_acquire_owned();
        place
            .map(|place| Admission { _place: place })
            .map_err(|_| PasswordError::Busy)
    }

    /// Whether the password fits the hash. Without a hash it takes as long and the answer is no.
    pub async fn verify(
        &self,
        admission: Admission,
        password: String,
        expected: Option<String>,
    ) -> Result<bool, PasswordError> {
        let known = expected.is_some();
        let expected = expected.unwrap_or_else(|| self.0.dummy.clone());
        let fits = self
            .run(admission, move |arena| verify(password.as_bytes(), &expected, arena))
            .await?;
        Ok(known && fits)
    }

    /// The PHC string of a password under a new salt.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.run(self.admit()?, move |arena| hash(password.as_bytes(), arena))
            .await
    }

    async fn run<T: Send + 'static>(
        &self,
        admission: Admission,
        work: impl FnOnce(&mut [Block]) -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let (answer, answered) = oneshot::channel();
        let queued = Instant::now();
        let job = move |arena: &mut [Block]| {
            // The place goes with the work: a client that hangs up does not make room for another hash.
            let _place = admission;
            let done = if queued.elapsed() > QUEUE_TIMEOUT {
                BusySnafu.fail()
            } else {
                work(arena)
            };
            drop(answer.send(done));
        };
        // The threads live as long as this does; a job that cannot be sent is dropped, and its answer with it.
        drop(self.0.jobs.send(Box::new(job)));
        answered.await.context(BrokeOffSnafu)?
    }
}

/// Until nobody can send a job any more.
fn do_jobs(waiting: &Mutex<Receiver<Job>>) {
    // On Linux this is the thread's own. Where it is refused, logins are as urgent as everything else.
    if let Err(error) = setpriority_process(None, NICENESS) {
        tracing::warn!(%error, "The priority of hashing passwords could not be lowered.");
    }
    let mut kept = None;
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let arena = kept.get_or_insert_with(arena);
        // Who asked hears of it by the answer that never comes.
        if catch_unwind(AssertUnwindSafe(|| job(arena))).is_err() {
            tracing::error!("Hashing a password panicked.");
        }
    }
}

/// The PHC string of a password under a new salt; blocks for about 20 ms. For programs that hash once, such as the migration.
pub fn hash_once(password: &str) -> Result<String, PasswordError> {
    hash(password.as_bytes(), &mut arena())
}

fn arena() -> Vec<Block> {
    vec![Block::new(); MEMORY as usize]
}

fn hash(password: &[u8], arena: &mut [Block]) -> Result<String, PasswordError> {
    let params = Params::new(MEMORY, PASSES, LANES, Some(HASH_BYTES)).map_err(failed)?;
    let salt = Salt::generate();
    let output = compute(&params, Version::V0x13, password, salt.as_ref(), arena)?;
    let phc = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(failed)?,
        salt: Some(salt),
        hash: Some(Output::new(&output).map_err(failed)?),
    };
    Ok(phc.to_string())
}

fn verify(password: &[u8], expected: &str, arena: &mut [Block]) -> Result<bool, PasswordError> {
    let phc = PasswordHash::new(expected).map_err(failed)?;
    let params = Params::try_from(&phc).map_err(failed)?;
    let version = phc
        .version
        .map_or(Ok(Version::V0x13), Version::try_from)
        .map_err(failed)?;
    let (Some(salt), Some(output)) = (phc.salt.as_ref(), phc.hash.as_ref()) else {
        return Ok(false);
    };
    let found = compute(&params, version, password, salt.as_ref(), arena)?;
    Ok(bool::from(found.as_slice().ct_eq(output.as_bytes())))
}

fn compute(
    params: &Params,
    version: Version,
    password: &[u8],
    salt: &[u8],
    arena: &mut [Block],
) -> Result<[u8; HASH_BYTES], PasswordError> {
    let mut output = [0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, version, params.clone())
        .hash_password_into_with_memory(password, salt, &mut output, arena)
        .map_err(failed)?;
    Ok(output)
}

fn failed(error: impl std::fmt::Display) -> PasswordError {
    PasswordError::Hash {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    async fn check(passwords: &Passwords, password: &str, hash: Option<String>) -> Result<bool, PasswordError> {
        passwords.verify(passwords.admit()?, password.to_owned(), hash).await
    }

    #[test]
    fn a_hash_says_its_algorithm_and_cost() {
        let hash = hash_once("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, hash_once("correct horse").unwrap());
    }

    #[tokio::test]
    async fn only_the_right_password_fits() {
        let passwords = Passwords::new(2).unwrap();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(check(&passwords, "correct horse", Some(hash.clone())).await.unwrap());
        assert!(!check(&passwords, "correct house", Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_user_never_fits_and_takes_as_long() {
        let passwords = Passwords::new(1).unwrap();
        let hash = passwords.hash("a".to_owned()).await.unwrap();
        let started = std::time::Instant::now();
        assert!(!check(&passwords, "b", Some(hash)).await.unwrap());
        let known = started.elapsed();
        let started = std::time::Instant::now();
        assert!(!check(&passwords, "b", None).await.unwrap());
        assert!(started.elapsed() * 4 > known, "an unknown user answers faster");
    }

    #[tokio::test]
    async fn more_logins_than_the_queue_holds_are_told_to_come_back() {
        let passwords = Passwords::new(1).unwrap();
        let places: Vec<_> = (0..QUEUE_PER_CORE).map(|_| passwords.admit().unwrap()).collect();
        assert!(matches!(check(&passwords, "x", None).await, Err(PasswordError::Busy)));
        drop(places);
        assert!(check(&passwords, "x", None).await.is_ok(), "it recovers");
    }

    #[tokio::test]
    async fn a_hash_gives_way_to_everything_else() {
        let passwords = Passwords::new(1).unwrap();
        let niceness = passwords.run(passwords.admit().unwrap(), |_| Ok(getpriority_process(None).unwrap()));
        assert_eq!(niceness.await.unwrap(), NICENESS);
        assert_ne!(
            getpriority_process(None).unwrap(),
            NICENESS,
            "the threads that serve requests stay as they are"
        );
    }

    #[tokio::test]
    async fn a_hash_that_panics_takes_no_other_with_it() {
        let passwords = Passwords::new(1).unwrap();
        let broken: Result<(), _> = passwords.run(passwords.admit().unwrap(), |_| panic!("broken")).await;
        assert!(matches!(broken, Err(PasswordError::BrokeOff { .. })));
        assert!(check(&passwords, "x", None).await.is_ok());
    }
}
