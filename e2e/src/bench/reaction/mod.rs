//! `selextract-bench reaction`: how long after a backlog the first new pod is there, beside two `HorizontalPodAutoscaler`s on their defaults:
//! one that is told the same backlog by the same Prometheus, and one that goes by the CPU of workers with the same backlog. By hand.

mod adapter;
mod metrics_server;
mod platforms;
mod rivals;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use self::{adapter::Adapter, metrics_server::MetricsServer, platforms::Platforms, rivals::Rivals};
use super::{Report, Subject, compare::percentile, prepare};
use crate::{prometheus::Prometheus, world::World};

/// How long anybody may take; who has not answered then is counted with it.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often the autoscalers look (`--horizontal-pod-autoscaler-sync-period`): backlogs come at any moment of it.
const PERIOD: Duration = Duration::from_secs(15);
/// The CPU of the last round is forgotten: the window of metrics-server and of our rates. A short round leaves too little to matter.
const CALM: Duration = Duration::from_mins(1);
const SHORT_CALM: Duration = Duration::from_secs(15);
/// Those that react, in the order of the table.
const WHO: [&str; 3] = [
    "the operator",
    "HorizontalPodAutoscaler, told the same backlog by the same Prometheus",
    "HorizontalPodAutoscaler, by CPU",
];

/// What is measured.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    subject: Subject,
    /// How many backlogs come.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// In how many of the first rounds the autoscaler by CPU is waited for; it has no part in the others, which are over in a minute.
    #[arg(long, default_value_t = 5)]
    cpu_rounds: u32,
}

/// Measures it.
pub async fn run(options: &Options) -> Result<()> {
    let (rounds, cpu_rounds) = if options.subject.smoke {
        (1, 1)
    } else {
        (options.rounds, options.cpu_rounds.min(options.rounds))
    };
    let mut report = Report::about(prepare(options.subject)?);
    let world = World::enter("bench-reaction").await?;
    world.serve_sites()?;
    let took = measure(&world, rounds, cpu_rounds).await;
    // Whatever came of it: a group of the API that nobody serves any more keeps namespaces from going.
    adapter::unregister(&world)?;
    tell(&mut report, took?);
    println!("\n{}", report.markdown()?);
    world.leave()
}

/// How long each took, each time.
async fn measure(world: &World, rounds: u32, cpu_rounds: u32) -> Result<[Vec<Duration>; 3]> {
    let platforms = Platforms::start(world).await?;
    let _metrics_server = MetricsServer::start(world).await?;
    let _adapter = Adapter::start(world, Prometheus::of(world, platforms::OURS)?).await?;
    let rivals = Rivals::new(world);
    let mut took = WHO.map(|_| Vec::new());
    for round in 1..=rounds {
        let by_cpu = round <= cpu_rounds;
        platforms.rest().await?;
        rivals.start(by_cpu).await?;
        tokio::time::sleep(phase(round)).await;
        let seconds = react(world, &platforms, round, by_cpu).await?;
        for (all, one) in took.iter_mut().zip(seconds) {
            all.extend(one);
        }
        platforms.cancel().await?;
        rivals.end().await?;
        tokio::time::sleep(if by_cpu { CALM } else { SHORT_CALM }).await;
    }
    Ok(took)
}

fn tell(report: &mut Report, mut took: [Vec<Duration>; 3]) {
    for (who, all) in WHO.iter().zip(&mut took).filter(|(_, all)| !all.is_empty()) {
        let rounds = all.len();
        all.sort_unstable();
        let (middle, late) = (percentile(all, 50) / 1000.0, percentile(all, 95) / 1000.0);
        let aim = if *who == WHO[0] { "P95 below 15 s" } else { "" };
        let late_ones = all.iter().filter(|took| **took >= PATIENCE).count();
        let told = match late_ones {
            0 => format!("P50 {middle:.1} s, P95 {late:.1} s in {rounds} rounds"),
            some => format!(
                "P50 {middle:.1} s, P95 {late:.1} s; {some} of {rounds} times none within {} s",
                PATIENCE.as_secs()
            ),
        };
        report.add(format!("from a backlog to the new pod object: {who}"), told, aim);
    }
}

/// Another moment of the autoscalers' period each time, spread evenly.
fn phase(round: u32) -> Duration {
    PERIOD.mul_f64(f64::from(round) * 0.618_034 % 1.0)
}

/// Posts one backlog to both platforms; when each one's first new pod was there, and nothing of who has no part in it.
async fn react(world: &World, platforms: &Platforms<'_>, round: u32, by_cpu: bool) -> Result<[Option<Duration>; 3]> {
    let deployments = [platforms::OURS_WORKER, rivals::BY_QUEUE, platforms::THEIRS_WORKER];
    let parts = if by_cpu { 3 } else { 2 };
    let mut before = Vec::new();
    for name in deployments {
        let pods = platforms::pods(world, name).await?;
        ensure!(
            pods.len() == 1,
            "{name} has {} pods and not 1 before a backlog",
            pods.len()
        );
        before.push(pods);
    }
    platforms.post().await?;
    let began = tokio::time::Instant::now();
    let mut took = [None; 3];
    while took[..parts].iter().any(Option::is_none) && began.elapsed() < PATIENCE {
        for (index, name) in deployments[..parts].iter().enumerate() {
            let new = took[index].is_none()
                && platforms::pods(world, name)
                    .await?
                    .iter()
                    .any(|pod| !before[index].contains(pod));
            if new {
                took[index] = Some(began.elapsed());
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for one in &mut took[..parts] {
        *one = one.or(Some(PATIENCE));
    }
    let told: Vec<_> = ["operator", "by queue", "by CPU"]
        .iter()
        .zip(took.iter().flatten())
        .map(|(who, took)| format!("{who} {:.1} s", took.as_secs_f64()))
        .collect();
    println!("      round {round}: {}", told.join(", "));
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backlogs_come_at_every_part_of_the_period() {
        let mut phases: Vec<_> = (1..=20).map(phase).collect();
        phases.sort_unstable();
        let gap = phases.windows(2).map(|pair| pair[1].abs_diff(pair[0])).max().unwrap();
        assert!(phases[19] < PERIOD && gap < PERIOD / 10, "{phases:?}");
    }
}
