//! Passwords: Argon2id behind a bounded queue.
//!
//! A hash costs about 20 ms of one core and 19 MiB, so unbounded logins would be a denial of service of their own: at most one hash runs per
//! core, a short queue waits, and the rest is told to come back. The arenas are kept: allocating 19 MiB each time costs half as much again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use rand::RngCore;
use snafu::{ResultExt, Snafu};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// Waiting logins for each running one: ten times 20 ms keeps a login inside the guide's 200 ms.
const QUEUE_PER_CORE: usize = 10;
const QUEUE_TIMEOUT: Duration = Duration::from_secs(1);
/// OWASP's second recommendation for Argon2id, in KiB.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const HASH_BYTES: usize = 32;

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
    /// The blocking task ended.
    #[snafu(display("the task that hashes passwords ended"))]
    Task {
        /// Why.
        source: tokio::task::JoinError,
    },
}

/// Checks and hashes passwords, a bounded number at a time.
#[derive(Clone, Debug)]
pub struct Passwords(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
    arenas: Mutex<Vec<Vec<Block>>>,
    /// The hash that a password of an unknown user is checked against, so that it takes as long.
    dummy: String,
}

impl Passwords {
    /// As many at a time as there are `cores`.
    pub fn new(cores: usize) -> Result<Self, PasswordError> {
        let mut random = [0; 16];
        rand::rng().fill_bytes(&mut random);
        Ok(Self(Arc::new(Inner {
            admitted: Arc::new(Semaphore::new(cores * QUEUE_PER_CORE)),
            running: Arc::new(Semaphore::new(cores)),
            arenas: Mutex::new(Vec::with_capacity(cores)),
            dummy: hash(&random, &mut arena())?,
        })))
    }

    /// Whether the password fits the hash. Without a hash it takes as long and the answer is no.
    pub async fn verify(&self, password: String, expected: Option<String>) -> Result<bool, PasswordError> {
        let known = expected.is_some();
        let expected = expected.unwrap_or_else(|| self.0.dummy.clone());
        let fits = self
            .run(move |arena| verify(password.as_bytes(), &expected, arena))
            .await?;
        Ok(known && fits)
    }

    /// The PHC string of a password under a new salt.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.run(move |arena| hash(password.as_bytes(), arena)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut [Block]) -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let Ok(admitted) = self.0.admitted.clone().try_acquire_owned() else {
            return BusySnafu.fail();
        };
        let Ok(Ok(running)) = tokio::time::timeout(QUEUE_TIMEOUT, self.0.running.clone().acquire_owned()).await else {
            return BusySnafu.fail();
        };
        let inner = self.0.clone();
        // The permits go with the work: a client that hangs up does not make room for another hash.
        tokio::task::spawn_blocking(move || {
            let _permits = (admitted, running);
            let mut arena = inner.take_arena();
            let result = work(&mut arena);
            inner.put_arena(arena);
            result
        })
        .await
        .context(TaskSnafu)?
    }
}

impl Inner {
    fn take_arena(&self) -> Vec<Block> {
        let kept = self.arenas.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(arena)
    }

    fn put_arena(&self, arena: Vec<Block>) {
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner).push(arena);
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
    use super::*;

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
        assert!(
            passwords
                .verify("correct horse".to_owned(), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(!passwords.verify("correct house".to_owned(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_user_never_fits_and_takes_as_long() {
        let passwords = Passwords::new(1).unwrap();
        let hash = passwords.hash("a".to_owned()).await.unwrap();
        let started = std::time::Instant::now();
        assert!(!passwords.verify("b".to_owned(), Some(hash)).await.unwrap());
        let known = started.elapsed();
        let started = std::time::Instant::now();
        assert!(!passwords.verify("b".to_owned(), None).await.unwrap());
        assert!(started.elapsed() * 4 > known, "an unknown user answers faster");
    }

    #[tokio::test]
    async fn more_logins_than_the_queue_holds_are_told_to_come_back() {
        let passwords = Passwords::new(1).unwrap();
        let all = (0..QUEUE_PER_CORE * 2).map(|_| passwords.verify("x".to_owned(), None));
        let busy = futures::future::join_all(all).await;
        let busy = busy.iter().filter(|r| matches!(r, Err(PasswordError::Busy))).count();
        assert_eq!(busy, QUEUE_PER_CORE);
        assert!(passwords.verify("x".to_owned(), None).await.is_ok(), "it recovers");
    }

    #[tokio::test]
    async fn arenas_are_used_again() {
        let passwords = Passwords::new(1).unwrap();
        for _ in 0..3 {
            passwords.verify("x".to_owned(), None).await.unwrap();
        }
        assert_eq!(passwords.0.arenas.lock().unwrap().len(), 1);
    }
}
