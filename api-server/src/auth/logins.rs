//! How sign-ins end, which the guide counts ("Login success rate").

use axum::http::StatusCode;
use prometheus::{IntCounterVec, Opts, Registry};

use crate::problem::Problem;

/// What became of a sign-in: let in, refused (its name or password was wrong, or its user locked out), or not judged, for the server was busy
/// or broken.
const OUTCOMES: [&str; 3] = ["succeeded", "refused", "failed"];

/// The counter; cheap to clone.
#[derive(Clone, Debug)]
pub struct Logins(IntCounterVec);

impl Logins {
    /// Every outcome stands at 0.
    ///
    /// # Errors
    /// Never: the name is a name.
    pub fn new() -> prometheus::Result<Self> {
        let counter = IntCounterVec::new(
            Opts::new("selextract_logins_total", "Sign-ins by what became of them."),
            &["outcome"],
        )?;
        for outcome in OUTCOMES {
            counter.with_label_values(&[outcome]);
        }
        Ok(Self(counter))
    }

    /// Registers it.
    ///
    /// # Errors
    /// When its name is taken in the registry.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.0.clone()))
    }

    /// Counts one.
    pub fn count<T>(&self, login: &Result<T, Problem>) {
        let outcome = match login.as_ref().map_err(Problem::status) {
            Ok(_) => "succeeded",
            Err(StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS) => "refused",
            Err(_) => "failed",
        };
        self.0.with_label_values(&[outcome]).inc();
    }
}

#[cfg(test)]
mod tests {
    use selextract_telemetry::render;

    use super::*;

    #[test]
    fn who_may_not_enter_and_who_could_not_be_asked_are_told_apart() {
        let (registry, logins) = (Registry::new(), Logins::new().unwrap());
        logins.register(&registry).unwrap();
        logins.count::<()>(&Ok(()));
        logins.count::<()>(&Err(Problem::wrong_credentials()));
        logins.count::<()>(&Err(Problem::internal()));
        let text = render(&registry);
        for outcome in OUTCOMES {
            let line = format!("selextract_logins_total{{outcome=\"{outcome}\"}} 1");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
