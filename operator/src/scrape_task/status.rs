//! What a `ScrapeTask`'s status says of its run. Pure. At most three writes a run: accepted, started, finished; and one for each reason
//! that it waits for longer than a minute, and for its end.

use jiff::Timestamp;
use selextract_crds::{LastError, RunState, ScrapeTaskStatus};
use selextract_task::feed::{self, Run};
use serde_json::{Map, Value};

use super::judge::Fault;
use crate::conditions::{self, Summary, Verdict};

const MAX_PREVIEW: usize = 4096;
const MAX_ERROR: usize = 1024;
/// The condition that tells of drift, and the event.
pub const DRIFT: &str = "SchemaDrift";
/// The condition that tells of the newest run.
const SUCCEEDED: &str = "Succeeded";
/// The reason of what waits for a quota, and the event.
pub const QUOTA: &str = "QuotaExceeded";

/// The condition that tells of a tick that waits, as long as one does.
const TICK_HELD: &str = "TickHeld";

/// What is known about a task now.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Its cluster has it.
    Accepted {
        /// The newest run, where one is known.
        run: Option<Box<Run>>,
        /// When the schedule runs next.
        next_run_at: Option<String>,
        /// That a tick of the schedule waits, and why, in the condition's words.
        held: Option<String>,
    },
    /// It is on its way to its cluster.
    Waiting {
        /// The condition's reason.
        reason: &'static str,
        /// One sentence.
        message: String,
    },
    /// A person has to change something.
    Stalled(Fault),
}

/// The status to store.
pub fn next(old: &ScrapeTaskStatus, generation: i64, outcome: &Outcome, now: Timestamp) -> ScrapeTaskStatus {
    let mut status = old.clone();
    if let Outcome::Accepted { run, next_run_at, .. } = outcome {
        if let Some(run) = run.as_deref().filter(|run| advances(old, run)) {
            mirror(&mut status, run);
        }
        // The next tick moves with each run: alone it is no news.
        if status.run_id != old.run_id
            || status.state != old.state
            || next_run_at.is_some() != old.next_run_time.is_some()
        {
            status.next_run_time.clone_from(next_run_at);
        }
    }
    let mut verdicts = match outcome {
        Outcome::Accepted { .. } => {
            conditions::summaries(Summary::Ready, "Accepted", "The cluster has accepted the task.")
        }
        Outcome::Waiting { .. } if is_accepted(old, generation) => {
            // Once accepted it stays so: an API that is away for a while is no news about the task.
            return old.clone();
        }
        Outcome::Waiting { reason, message } => conditions::summaries(Summary::Reconciling, reason, message),
        Outcome::Stalled(fault) => conditions::summaries(Summary::Stalled, fault.reason, &fault.message),
    };
    verdicts.push(succeeded(&status));
    verdicts.extend(drifted(&status));
    if let Outcome::Accepted { held: Some(words), .. } = outcome {
        verdicts.push(Verdict::yes(TICK_HELD, QUOTA, words.clone()));
    }
    status.conditions = conditions::merge(&old.conditions, verdicts, generation, now);
    status.observed_generation = generation;
    status
}

/// Whether this status says that this generation was accepted.
pub fn is_accepted(status: &ScrapeTaskStatus, generation: i64) -> bool {
    status.observed_generation == generation
        && status
            .conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The state as a metric's label.
pub fn state_label(status: &ScrapeTaskStatus) -> &'static str {
    match status.state {
        None => "none",
        Some(RunState::Pending) => "pending",
        Some(RunState::Running) => "running",
        Some(RunState::Succeeded) => "succeeded",
        Some(RunState::Failed) => "failed",
        Some(RunState::Canceled) => "canceled",
    }
}

/// Whether a run is news: a newer one, or the same one further on. Going back to the queue is not.
fn advances(old: &ScrapeTaskStatus, run: &Run) -> bool {
    match &old.run_id {
        // Ids are UUIDv7: their texts sort by time.
        Some(known) if *known == run.id => {
            let told = old.state.map_or(0, phase);
            phase(run.state.into()) > told || (told < ENDED && run.waiting != old.waiting)
        }
        Some(known) => run.id > *known,
        None => true,
    }
}

/// The phase of a run that has ended.
pub const ENDED: u8 = 3;

/// How far a run is; it only goes on.
pub fn phase(state: RunState) -> u8 {
    match state {
        RunState::Pending => 1,
        RunState::Running => 2,
        RunState::Succeeded | RunState::Failed | RunState::Canceled => ENDED,
    }
}

fn mirror(status: &mut ScrapeTaskStatus, run: &Run) {
    let same = status.run_id.as_deref() == Some(run.id.as_str());
    status.run_id = Some(run.id.clone());
    status.spec_hash = Some(run.spec_hash.clone());
    // One that was given back has started all the same.
    let went_on = !same || phase(run.state.into()) >= status.state.map_or(0, phase);
    if went_on {
        status.state = Some(run.state.into());
    }
    status.waiting = run
        .waiting
        .as_ref()
        .filter(|_| run.state.is_open())
        .map(|word| conditions::as_reason(word));
    status.pages = i64::try_from(run.pages).ok();
    status.records = i64::try_from(run.records).ok();
    status.error = run.error.as_ref().map(last_error);
    status.created_at = Some(run.created_at.clone());
    status.started_at.clone_from(&run.started_at);
    status.finished_at.clone_from(&run.finished_at);
    status.results = Some(format!("/api/v1/tasks/{}/results", run.id));
    if !run.state.is_open() {
        status.preview = preview(&run.preview);
        // A run that was compared with nothing leaves what the last one told.
        if run.drift.is_some() {
            status.drift.clone_from(&run.drift);
        }
    }
}

fn last_error(error: &feed::RunError) -> LastError {
    LastError {
        class: error.class.chars().take(64).collect(),
        message: error.message.chars().take(MAX_ERROR).collect(),
    }
}

/// The records as a JSON array, cut short to whole records.
fn preview(records: &[Map<String, Value>]) -> Option<String> {
    let texts: Vec<String> = records
        .iter()
        .filter_map(|record| serde_json::to_string(record).ok())
        .collect();
    let fits = |count: &usize| {
        texts[..*count]
            .iter()
            .map(|text| text.chars().count() + 1)
            .sum::<usize>()
            < MAX_PREVIEW
    };
    let count = (1..=texts.len()).rev().find(fits)?;
    Some(format!("[{}]", texts[..count].join(",")))
}

fn succeeded(status: &ScrapeTaskStatus) -> Verdict {
    const KIND: &str = SUCCEEDED;
    match status.state {
        None => Verdict::unknown(KIND, "NotStarted", "There is no run yet."),
        Some(RunState::Pending | RunState::Running) if status.waiting.is_some() => {
            let reason = status.waiting.as_deref().unwrap_or_default();
            Verdict::unknown(KIND, reason, waits(reason))
        }
        Some(RunState::Pending) => Verdict::unknown(KIND, "Pending", "The run waits for a worker."),
        Some(RunState::Running) => Verdict::unknown(KIND, "Running", "The run is under way."),
        Some(RunState::Succeeded) => Verdict::yes(KIND, "Succeeded", "Every page was read."),
        Some(RunState::Canceled) => Verdict::no(KIND, "Canceled", "The run was canceled."),
        Some(RunState::Failed) => match &status.error {
            Some(error) => Verdict::no(KIND, &conditions::as_reason(&error.class), error.message.clone()),
            None => Verdict::no(KIND, "Failed", "The run failed."),
        },
    }
}

/// Whether the newest run that could be compared found far less than the runs before it. No figures: those move, and the API tells them.
fn drifted(status: &ScrapeTaskStatus) -> Option<Verdict> {
    let drift = status.drift.as_ref()?;
    Some(if drift.is_empty() {
        Verdict::no(
            DRIFT,
            "NoDrift",
            "The newest run found about as much as the runs before it.",
        )
    } else {
        let what: String = drift.join(", ").chars().take(MAX_ERROR / 2).collect();
        let message = format!(
            "The site seems to have changed under the selectors: the newest run found far less than the runs before it ({what}). The API's task \
             has the figures."
        );
        Verdict::yes(DRIFT, DRIFT, message)
    })
}

/// Whether the status says that the site has changed.
pub fn has_drifted(status: &ScrapeTaskStatus) -> bool {
    status.drift.as_ref().is_some_and(|drift| !drift.is_empty())
}

/// What cannot be done for a quota, as the status says: the task is not accepted, its run does not go on, or a tick starts none. And what
/// it says about that.
pub fn quotas_exceeded(status: &ScrapeTaskStatus) -> impl Iterator<Item = (&'static str, &str)> {
    let exceeded = status.conditions.iter().filter(|condition| condition.reason == QUOTA);
    exceeded.filter_map(|condition| {
        let what = match condition.type_.as_str() {
            "Ready" => "Accept",
            SUCCEEDED => "Run",
            TICK_HELD => "Tick",
            _ => return None,
        };
        Some((what, condition.message.as_str()))
    })
}

/// What the status says of a tick that waits.
pub fn held_tick(status: &ScrapeTaskStatus) -> Option<&str> {
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == TICK_HELD)?;
    Some(&condition.message)
}

/// What it is to say, for this reason.
pub fn tick_waits(why: &str) -> String {
    format!("A tick of the schedule waits within its starting deadline: {why}.")
}

/// A reason of a wait as a number, small enough to be remembered for each of ten thousand tasks; 0 is none.
pub fn waiting_code(reason: Option<&str>) -> u8 {
    match reason {
        None => 0,
        Some("DomainLimited") => 1,
        Some("HostUnavailable") => 2,
        Some(QUOTA) => 3,
        Some("NoWorker") => 4,
        Some("Paused") => 5,
        Some("RetryBackoff") => 6,
        Some("Scheduled") => 7,
        Some(_) => u8::MAX,
    }
}

/// What a reason of a wait means, without figures: those move, and the API tells them.
fn waits(reason: &str) -> &'static str {
    match reason {
        "DomainLimited" => {
            "The run waits for its turn at the site: it is asked as often as politeness allows, for all runs together."
        }
        "HostUnavailable" => "The run waits for the site, which does not answer or asked to be left alone.",
        QUOTA => "The run waits because the namespace has used up a quota; the API says which, and how much of it.",
        "NoWorker" => "The run waits for a worker, and none is there; the SelextractCluster's conditions say why.",
        "Paused" => "The run is paused; it goes on when it is resumed by the API.",
        "RetryBackoff" => "A page failed and is tried again after a while; the API says why, and when.",
        "Scheduled" => "The run waits for its time.",
        _ => "The run waits; the API says why, and about how long.",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(id: &str, state: feed::RunState) -> Run {
        Run {
            id: id.into(),
            spec_hash: "h".into(),
            state,
            pages: 2,
            records: 3,
            error: (state == feed::RunState::Failed).then(|| feed::RunError {
                class: "Timeout".into(),
                message: "The page took too long.".into(),
            }),
            created_at: "2026-11-24T02:00:00Z".into(),
            started_at: None,
            finished_at: None,
            preview: Vec::new(),
            waiting: None,
            drift: None,
        }
    }

    fn accepted(run: Run) -> Outcome {
        Outcome::Accepted {
            run: Some(Box::new(run)),
            next_run_at: None,
            held: None,
        }
    }

    fn after(old: &ScrapeTaskStatus, outcome: &Outcome, second: i64) -> ScrapeTaskStatus {
        next(old, 1, outcome, Timestamp::from_second(second).unwrap())
    }

    fn condition<'a>(status: &'a ScrapeTaskStatus, kind: &str) -> (&'a str, &'a str) {
        let found = status.conditions.iter().find(|c| c.type_ == kind).unwrap();
        (&found.status, &found.reason)
    }

    #[test]
    fn a_run_is_written_three_times_however_often_it_is_told() {
        use feed::RunState::{Pending, Running, Succeeded};
        let told = [
            Pending, Pending, Running, Running, Pending, Running, Succeeded, Succeeded, Running,
        ];
        let (mut status, mut writes) = (ScrapeTaskStatus::default(), 0);
        for (second, state) in told.into_iter().enumerate() {
            let mut run = run("0190-a", state);
            run.pages = second as u64;
            let new = after(&status, &accepted(run), i64::try_from(second).unwrap());
            writes += i32::from(new != status);
            status = new;
        }
        assert_eq!(writes, 3);
        assert_eq!(condition(&status, "Succeeded"), ("True", "Succeeded"));
    }

    #[test]
    fn a_wait_that_lasts_is_written_once_and_so_is_its_end() {
        use feed::RunState::{Pending, Running, Succeeded};
        let told = [
            (Pending, None, "Pending"),
            (Pending, Some("NoWorker"), "NoWorker"),
            (Pending, Some("NoWorker"), "NoWorker"),
            (Running, None, "Running"),
            (Pending, None, "Running"),
            (Pending, Some("RetryBackoff"), "RetryBackoff"),
            (Running, Some("RetryBackoff"), "RetryBackoff"),
            (Running, None, "Running"),
            (Succeeded, None, "Succeeded"),
            (Pending, Some("Paused"), "Succeeded"),
        ];
        let (mut status, mut writes) = (ScrapeTaskStatus::default(), 0);
        for (second, (state, waiting, reason)) in told.into_iter().enumerate() {
            let mut run = run("0190-a", state);
            run.waiting = waiting.map(str::to_owned);
            let new = after(&status, &accepted(run), i64::try_from(second).unwrap());
            assert_eq!(condition(&new, "Succeeded").1, reason, "{second}");
            writes += i32::from(new != status);
            status = new;
        }
        assert_eq!(writes, 6);
        assert_eq!(status.waiting, None);
        let known = Outcome::Accepted {
            run: None,
            next_run_at: None,
            held: None,
        };
        assert_eq!(after(&status, &known, 99), status);
    }

    #[test]
    fn drift_is_a_condition_without_figures_that_stays_until_a_run_is_well() {
        let told = |old: &ScrapeTaskStatus, id: &str, drift: Option<&[&str]>, second| {
            let mut run = run(id, feed::RunState::Succeeded);
            run.drift = drift.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            after(old, &accepted(run), second)
        };
        let first = told(&ScrapeTaskStatus::default(), "a", None, 1);
        assert!(
            first.conditions.iter().all(|c| c.type_ != DRIFT),
            "there is nothing to compare with"
        );
        let drifted = told(&first, "b", Some(&["field price", "records"]), 2);
        assert_eq!(condition(&drifted, DRIFT), ("True", "SchemaDrift"));
        assert!(has_drifted(&drifted));
        let again = told(&drifted, "c", Some(&["field price", "records"]), 3);
        let conditions = |status: &ScrapeTaskStatus| status.conditions.clone();
        assert_eq!(
            conditions(&again),
            conditions(&drifted),
            "the same is told in the same words"
        );
        let failed = after(&again, &accepted(run("d", feed::RunState::Failed)), 4);
        assert_eq!(condition(&failed, DRIFT).0, "True", "a run that failed tells nothing");
        assert_eq!(
            condition(&told(&failed, "e", Some(&[]), 5), DRIFT),
            ("False", "NoDrift")
        );
    }

    #[test]
    fn a_run_that_waits_keeps_its_reason_when_it_is_looked_at_again() {
        let mut run = run("0190-a", feed::RunState::Pending);
        run.waiting = Some("HostUnavailable".into());
        let status = after(&ScrapeTaskStatus::default(), &accepted(run), 1);
        let known = Outcome::Accepted {
            run: None,
            next_run_at: None,
            held: None,
        };
        assert_eq!(condition(&status, "Succeeded"), ("Unknown", "HostUnavailable"));
        assert_eq!(after(&status, &known, 2), status);
    }

    #[test]
    fn a_task_whose_site_is_down_is_still_ready() {
        let status = after(
            &ScrapeTaskStatus::default(),
            &accepted(run("a", feed::RunState::Failed)),
            1,
        );
        assert_eq!(condition(&status, "Ready"), ("True", "Accepted"));
        assert_eq!(condition(&status, "Succeeded"), ("False", "Timeout"));
        assert_eq!(condition(&status, "Stalled").0, "False");
    }

    #[test]
    fn the_outcome_is_unknown_while_the_run_is_under_way() {
        let status = after(
            &ScrapeTaskStatus::default(),
            &accepted(run("a", feed::RunState::Running)),
            1,
        );
        assert_eq!(condition(&status, "Succeeded"), ("Unknown", "Running"));
    }

    #[test]
    fn an_older_run_changes_nothing_and_a_newer_one_takes_over() {
        let finished = after(
            &ScrapeTaskStatus::default(),
            &accepted(run("b", feed::RunState::Succeeded)),
            1,
        );
        assert_eq!(
            after(&finished, &accepted(run("a", feed::RunState::Failed)), 2),
            finished
        );
        let newer = after(&finished, &accepted(run("c", feed::RunState::Pending)), 2);
        assert_eq!(newer.run_id.as_deref(), Some("c"));
    }

    #[test]
    fn an_api_that_is_away_takes_nothing_back_from_an_accepted_task() {
        let status = after(
            &ScrapeTaskStatus::default(),
            &accepted(run("a", feed::RunState::Running)),
            1,
        );
        let away = Outcome::Waiting {
            reason: "ClusterUnreachable",
            message: "It does not answer.".into(),
        };
        assert_eq!(after(&status, &away, 2), status);
        assert_eq!(
            condition(&next(&status, 2, &away, Timestamp::UNIX_EPOCH), "Reconciling"),
            ("True", "ClusterUnreachable")
        );
    }

    #[test]
    fn a_fault_stalls_and_keeps_what_is_known_of_the_run() {
        let status = after(
            &ScrapeTaskStatus::default(),
            &accepted(run("a", feed::RunState::Succeeded)),
            1,
        );
        let fault = Fault {
            reason: "InvalidTask",
            message: "spec.task: url".into(),
        };
        let stalled = next(&status, 2, &Outcome::Stalled(fault), Timestamp::UNIX_EPOCH);
        assert_eq!(condition(&stalled, "Stalled"), ("True", "InvalidTask"));
        assert_eq!(condition(&stalled, "Ready").0, "False");
        assert_eq!(stalled.run_id.as_deref(), Some("a"));
    }

    #[test]
    fn the_preview_holds_whole_records_only() {
        let record = |length: usize| json!({"text": "x".repeat(length)}).as_object().cloned().unwrap();
        assert_eq!(
            preview(&[record(1), record(1)]).unwrap(),
            r#"[{"text":"x"},{"text":"x"}]"#
        );
        let cut = preview(&[record(3000), record(3000)]).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&cut).unwrap().as_array().unwrap().len(),
            1
        );
        assert_eq!(preview(&[record(5000)]), None);
    }
}
