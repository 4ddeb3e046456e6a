//! Two contestants in turn (A, B, A, B, …), and the table of what each round said.

use std::fmt::Write as _;

use super::cast::Sample;

/// What one comparison found. The first round warms up and is left out.
pub struct Duel {
    what: String,
    unit: &'static str,
    floor: f64,
    /// Which processes count, of ours and of the peer's; all when none is named.
    parts: [&'static [&'static str]; 2],
    ours: Vec<Sample>,
    peers: Vec<Sample>,
}

/// The least, the middle and the most of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The middle one.
    pub median: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of at least one figure.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut all: Vec<_> = figures.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let at = |index: usize| all.get(index).copied().unwrap_or(f64::NAN);
        Self {
            least: at(0),
            median: at(all.len() / 2),
            most: at(all.len().saturating_sub(1)),
        }
    }
}

impl Duel {
    /// About this, counted in this unit, with the ratio that is aimed at.
    pub fn new(what: impl Into<String>, unit: &'static str, floor: f64) -> Self {
        Self {
            what: what.into(),
            unit,
            floor,
            parts: [&[], &[]],
            ours: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// Only these processes of ours and of the peer's count.
    pub fn only(mut self, ours: &'static [&'static str], peers: &'static [&'static str]) -> Self {
        self.parts = [ours, peers];
        self
    }

    /// Takes a round's two samples, unless it is the first (0).
    pub fn take(&mut self, round: usize, ours: Sample, peer: Sample) {
        let line = |sample: &Sample, parts: &[&str]| {
            format!(
                "{:.0} µs CPU, {:.0}/s{}",
                sample.micros(parts),
                sample.rate(),
                told(sample)
            )
        };
        println!(
            "      {}, round {round}: ours {}",
            self.what,
            line(&ours, self.parts[0])
        );
        println!(
            "      {}, round {round}: peer {}",
            self.what,
            line(&peer, self.parts[1])
        );
        if round > 0 {
            self.ours.push(ours);
            self.peers.push(peer);
        }
    }

    /// The peer's CPU over ours, round by round.
    pub fn ratio(&self) -> Spread {
        let rounds = self.ours.iter().zip(&self.peers);
        Spread::of(rounds.map(|(ours, peer)| peer.micros(self.parts[1]) / ours.micros(self.parts[0])))
    }

    fn row(&self) -> String {
        let (ratio, wall) = (self.ratio(), |samples: &[Sample]| {
            Spread::of(samples.iter().map(Sample::rate)).median
        });
        let cpu = |samples: &[Sample], parts: &[&str]| Spread::of(samples.iter().map(|s| s.micros(parts))).median;
        let verdict = if ratio.median >= self.floor { "" } else { " (below)" };
        format!(
            "| {}, CPU per {} | {:.0} µs | {:.0} µs | {:.1} × ({:.1}–{:.1}) | {} ×{verdict} | {:.0} | {:.0} |",
            self.what,
            self.unit,
            cpu(&self.ours, self.parts[0]),
            cpu(&self.peers, self.parts[1]),
            ratio.median,
            ratio.least,
            ratio.most,
            self.floor,
            wall(&self.ours),
            wall(&self.peers)
        )
    }
}

/// The table of these comparisons in Markdown.
pub fn table(duels: &[Duel]) -> String {
    let mut text = String::from(
        "| what | ours | peer | ratio, median (least–most) | floor | ours/s | peer/s |\n|---|---|---|---|---|---|---|\n",
    );
    for duel in duels.iter().filter(|duel| !duel.ours.is_empty()) {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{}", duel.row());
    }
    text
}

fn told(sample: &Sample) -> String {
    let parts = sample
        .cpu
        .keys()
        .map(|name| format!("{name} {:.0}", sample.micros(&[name])));
    format!(" ({})", parts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(milliseconds: u64) -> Sample {
        Sample {
            units: 1000,
            wall: Duration::from_secs(1),
            cpu: [("a", Duration::from_millis(milliseconds))].into(),
        }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_rounds_and_the_first_round_does_not_count() {
        let mut duel = Duel::new("a thing", "piece", 4.0);
        for (round, ours, peer) in [(0, 1, 900), (1, 10, 50), (2, 10, 30), (3, 20, 80)] {
            duel.take(round, sample(ours), sample(peer));
        }
        let ratio = duel.ratio();
        assert_eq!((ratio.least, ratio.median, ratio.most), (3.0, 4.0, 5.0));
        let row = table(&[duel]);
        assert!(row.contains("| 4.0 × (3.0–5.0) | 4 × |"), "{row}");
    }

    #[test]
    fn a_ratio_below_its_floor_is_said() {
        let mut duel = Duel::new("a thing", "piece", 4.0);
        duel.take(1, sample(10), sample(20));
        assert!(table(&[duel]).contains("(below)"));
    }
}
