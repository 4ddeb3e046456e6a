//! What to change about requests, limits and volumes, from what was used (guide: "Vertical Scaling Guidelines", "Right-sizing"). Pure.
//!
//! Nothing is ever recommended below what was used at its 95th percentile and a quarter more.

use std::cmp::Reverse;

use selextract_crds::RecommendationStatus;

use super::{Amount, Money, Part, Prices, part::whole};

/// The most that are told.
const MOST: usize = 10;
/// A limit is short from this share of it on, in percent (guide: "Resource Budget", warnings of CPU, memory and disk).
const SHORT_CPU: u128 = 80;
const SHORT_MEMORY: u128 = 85;
const SHORT_VOLUME: u128 = 85;
/// A larger volume is filled to this share at most, in percent (guide: "Resource Budget", target of disk).
const CALM_VOLUME: u128 = 70;
/// The smallest steps that requests are lowered to.
const LEAST_MILLICORES: u64 = 125;
const LEAST_BYTES: u64 = 64 << 20;

/// CPU or memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    /// In thousandths of a core.
    Cpu,
    /// In bytes.
    Memory,
}

/// A row of the guide's table ("Vertical Scaling Guidelines").
struct Step {
    section: &'static str,
    resource: Resource,
    from: u64,
    to: u64,
    gain: &'static str,
}

const LADDER: [Step; 5] = [
    step("spec.api", Resource::Cpu, 2_000, 4_000, "+50 % throughput"),
    step("spec.api", Resource::Memory, 2 << 30, 4 << 30, "+30 % response time"),
    step(
        "spec.postgres",
        Resource::Memory,
        2 << 30,
        8 << 30,
        "+60 % query performance",
    ),
    step("spec.worker", Resource::Cpu, 2_000, 4_000, "+80 % task throughput"),
    step(
        "spec.redis.cache",
        Resource::Memory,
        1 << 30,
        2 << 30,
        "+40 % cache hit rate",
    ),
];

const fn step(section: &'static str, resource: Resource, from: u64, to: u64, gain: &'static str) -> Step {
    Step {
        section,
        resource,
        from,
        to,
        gain,
    }
}

/// The pods of one section, which are sized together.
struct Section<'a> {
    parts: Vec<&'a Part>,
    prices: &'a Prices,
}

/// Something to change.
struct Change {
    field: String,
    from: u64,
    to: u64,
    unit: Resource,
    why: String,
    monthly: Money,
    /// A limit or a volume that is nearly used up comes before what saves or costs.
    short: bool,
}

/// What to change, at most ten: what is short first, then by what it saves or costs.
pub fn recommend(parts: &[Part], prices: &Prices) -> Vec<RecommendationStatus> {
    let mut sections: Vec<&'static str> = parts.iter().map(|part| part.section).collect();
    // Parts of one section stand beside each other.
    sections.dedup();
    let mut changes: Vec<Change> = sections
        .into_iter()
        .flat_map(|name| {
            let parts = parts.iter().filter(|part| part.section == name).collect();
            Section { parts, prices }.changes()
        })
        .collect();
    changes.sort_by_key(|change| (!change.short, Reverse(change.monthly.size())));
    changes.truncate(MOST);
    changes.into_iter().map(Change::told).collect()
}

impl Section<'_> {
    fn changes(&self) -> Vec<Change> {
        let sized = [Resource::Cpu, Resource::Memory].map(|resource| self.resource(resource));
        sized.into_iter().flatten().chain(self.volume()).collect()
    }

    fn resource(&self, resource: Resource) -> Option<Change> {
        let part = self.parts.first()?;
        let used = self.used(resource)?;
        let amount = match resource {
            Resource::Cpu => part.cpu,
            Resource::Memory => part.memory,
        };
        self.raised_limit(resource, amount, used)
            .or_else(|| self.raised_request(resource, amount, used))
            .or_else(|| self.lowered_request(resource, amount, used))
    }

    /// What the busiest pod uses.
    fn used(&self, resource: Resource) -> Option<u64> {
        let of = |part: &&Part| match resource {
            Resource::Cpu => part.measured.cpu_p95.and_then(|cores| whole(cores * 1000.0)),
            Resource::Memory => part.measured.memory_p95.and_then(whole),
        };
        self.parts.iter().filter_map(of).max()
    }

    /// The guide's next step, or twice the limit, where the limit is short.
    fn raised_limit(&self, resource: Resource, amount: Amount, used: u64) -> Option<Change> {
        let limit = amount.limit.filter(|limit| *limit > 0)?;
        let short = match resource {
            Resource::Cpu => SHORT_CPU,
            Resource::Memory => SHORT_MEMORY,
        };
        if u128::from(used) * 100 < u128::from(limit) * short {
            return None;
        }
        let section = self.parts.first()?.section;
        let row = LADDER
            .iter()
            .find(|step| step.section == section && step.resource == resource && step.from == limit);
        let to = row.map_or_else(|| limit.saturating_mul(2), |step| step.to);
        let to = doubled_until(to, |to| to >= with_headroom(used));
        let gain = row.map_or_else(String::new, |step| format!("; the guide expects {}", step.gain));
        let share = u128::from(used) * 100 / u128::from(limit);
        let why = format!(
            "the busiest pod uses {} at its P95, {share} % of the limit{gain}",
            resource.text(used)
        );
        Some(self.change(resource, "limits", (limit, to), why))
    }

    /// What is used beyond what is reserved can be taken away at any time.
    fn raised_request(&self, resource: Resource, amount: Amount, used: u64) -> Option<Change> {
        let to = resource.rung(with_headroom(used));
        let to = to.min(amount.limit.unwrap_or(u64::MAX));
        let why = format!(
            "the busiest pod uses {} at its P95, more than is reserved for it",
            resource.text(used)
        );
        let worth = used > amount.request && to > amount.request;
        worth.then(|| self.change(resource, "requests", (amount.request, to), why))
    }

    /// A request that is lowered by less than a fifth is not worth a rollout (guide: "Right-sizing", -20 %).
    fn lowered_request(&self, resource: Resource, amount: Amount, used: u64) -> Option<Change> {
        let needed = with_headroom(used);
        let to = resource.rung(needed);
        let why = format!(
            "the busiest pod uses {} at its P95; a quarter more is {}",
            resource.text(used),
            resource.text(needed)
        );
        let worth = u128::from(to) * 5 <= u128::from(amount.request) * 4;
        worth.then(|| self.change(resource, "requests", (amount.request, to), why))
    }

    /// The change with what it costs: a raised limit is priced as if as much more were reserved.
    fn change(&self, resource: Resource, kind: &str, (from, to): (u64, u64), why: String) -> Change {
        let section = self.parts.first().map_or("", |part| part.section);
        let name = match resource {
            Resource::Cpu => "cpu",
            Resource::Memory => "memory",
        };
        let price = |amount: u64| -> Money {
            let of = |part: &&Part| match resource {
                Resource::Cpu => self.prices.cpu(amount, part.millipods()),
                Resource::Memory => self.prices.memory(amount, part.millipods()),
            };
            self.parts.iter().map(of).sum()
        };
        Change {
            field: format!("{section}.pod.resources.{kind}.{name}"),
            from,
            to,
            unit: resource,
            why,
            monthly: price(to) - price(from),
            short: kind == "limits",
        }
    }

    /// A volume can only grow.
    fn volume(&self) -> Option<Change> {
        let volume = self.parts.iter().find_map(|part| part.volume)?;
        let used = |part: &&Part| part.measured.volume_used.and_then(whole);
        let used = u128::from(self.parts.iter().filter_map(used).max()?);
        if volume.bytes == 0 || used * 100 < u128::from(volume.bytes) * SHORT_VOLUME {
            return None;
        }
        let calm = |to| used * 100 <= u128::from(to) * CALM_VOLUME;
        let to = doubled_until(volume.bytes.saturating_mul(2), calm);
        let pods: u128 = self.parts.iter().map(|part| u128::from(part.pods)).sum();
        let price = |bytes: u64| self.prices.storage(u128::from(bytes) * pods);
        let share = used * 100 / u128::from(volume.bytes);
        Some(Change {
            field: volume.field.to_owned(),
            from: volume.bytes,
            to,
            unit: Resource::Memory,
            why: format!("{share} % of the volume are used"),
            monthly: price(to) - price(volume.bytes),
            short: true,
        })
    }
}

impl Change {
    fn told(self) -> RecommendationStatus {
        RecommendationStatus {
            field: self.field,
            from: self.unit.text(self.from),
            to: self.unit.text(self.to),
            why: self.why,
            monthly: self.monthly.to_string(),
        }
    }
}

impl Resource {
    /// The smallest step that holds this: an eighth of a core, or 64Mi, doubled as often as needed.
    fn rung(self, needed: u64) -> u64 {
        let least = match self {
            Self::Cpu => LEAST_MILLICORES,
            Self::Memory => LEAST_BYTES,
        };
        doubled_until(least, |rung| rung >= needed)
    }

    /// As Kubernetes writes it; bytes that are no whole Mi are rounded up to one.
    fn text(self, amount: u64) -> String {
        match self {
            Self::Cpu if amount.is_multiple_of(1000) => (amount / 1000).to_string(),
            Self::Cpu => format!("{amount}m"),
            Self::Memory if amount > 0 && amount.is_multiple_of(1 << 30) => format!("{}Gi", amount >> 30),
            Self::Memory => format!("{}Mi", amount.div_ceil(1 << 20)),
        }
    }
}

fn doubled_until(mut amount: u64, enough: impl Fn(u64) -> bool) -> u64 {
    while !enough(amount) && amount > 0 && amount < u64::MAX / 2 {
        amount *= 2;
    }
    amount
}

fn with_headroom(used: u64) -> u64 {
    used.saturating_add(used.div_ceil(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{Measured, Volume, money::tests::guide};

    const GIB: f64 = 1_073_741_824.0;

    fn part(section: &'static str, cpu: (u64, u64), memory: (u64, u64)) -> Part {
        Part {
            component: section,
            section,
            pods: 4,
            cpu: Amount {
                request: cpu.0,
                limit: Some(cpu.1),
            },
            memory: Amount {
                request: memory.0 << 30,
                limit: Some(memory.1 << 30),
            },
            ..Part::default()
        }
    }

    type Row = (String, String, String, String);

    fn told(parts: &[Part]) -> Vec<Row> {
        let all = recommend(parts, &guide());
        all.into_iter()
            .map(|one| (one.field, one.from, one.to, one.monthly))
            .collect()
    }

    fn row(field: &str, from: &str, to: &str, monthly: &str) -> Row {
        (field.into(), from.into(), to.into(), monthly.into())
    }

    #[test]
    fn the_guides_table_is_the_ladder_with_its_gains() {
        for (section, cpu, memory, resource, from, to, gain) in [
            ("spec.api", 1.7, 1.0, "cpu", "2", "4", "+50 %"),
            ("spec.worker", 1.9, 1.0, "cpu", "2", "4", "+80 %"),
            ("spec.api", 1.1, 1.8, "memory", "2Gi", "4Gi", "+30 %"),
            ("spec.postgres", 1.1, 1.75, "memory", "2Gi", "8Gi", "+60 %"),
        ] {
            let mut part = part(section, (2000, 2000), (2, 2));
            part.measured.cpu_p95 = Some(cpu);
            part.measured.memory_p95 = Some(memory * GIB);
            let found = recommend(&[part], &guide());
            let first = &found[0];
            assert_eq!(first.field, format!("{section}.pod.resources.limits.{resource}"));
            assert_eq!((first.from.as_str(), first.to.as_str()), (from, to));
            assert!(first.why.contains(gain), "{}", first.why);
        }
        let mut cache = part("spec.redis.cache", (1000, 1000), (1, 1));
        cache.measured.memory_p95 = Some(0.9 * GIB);
        assert_eq!(
            told(&[cache]),
            [row(
                "spec.redis.cache.pod.resources.limits.memory",
                "1Gi",
                "2Gi",
                "20.00"
            )]
        );
    }

    #[test]
    fn a_request_that_is_hardly_used_is_lowered_and_says_what_that_saves() {
        let mut api = part("spec.api", (1000, 2000), (1, 2));
        api.measured.cpu_p95 = Some(0.18);
        api.measured.memory_p95 = Some(0.15 * GIB);
        assert_eq!(
            told(&[api]),
            [
                row("spec.api.pod.resources.requests.cpu", "1", "250m", "-150.00"),
                row("spec.api.pod.resources.requests.memory", "1Gi", "256Mi", "-15.00"),
            ]
        );
    }

    #[test]
    fn what_is_used_beyond_the_request_is_reserved() {
        let mut worker = part("spec.worker", (250, 4000), (2, 4));
        worker.measured.cpu_p95 = Some(0.6);
        assert_eq!(
            told(&[worker]),
            [row("spec.worker.pod.resources.requests.cpu", "250m", "1", "150.00")]
        );
    }

    #[test]
    fn what_is_not_measured_is_not_judged() {
        let mut api = part("spec.api", (1000, 2000), (1, 2));
        assert_eq!(told(&[api.clone()]), []);
        api.measured.cpu_p95 = Some(f64::NAN);
        api.measured.memory_p95 = Some(-1.0);
        assert_eq!(told(&[api]), []);
    }

    #[test]
    fn parts_of_one_section_are_sized_by_the_busiest_and_priced_together() {
        let mut primary = part("spec.postgres", (1000, 2000), (2, 4));
        primary.measured.cpu_p95 = Some(0.7);
        primary.pods = 1;
        let mut replica = primary.clone();
        replica.measured.cpu_p95 = Some(0.1);
        assert_eq!(told(&[primary.clone(), replica.clone()]), [], "0.7 needs its core");
        primary.measured.cpu_p95 = Some(0.3);
        assert_eq!(
            told(&[primary, replica]),
            [row("spec.postgres.pod.resources.requests.cpu", "1", "500m", "-50.00")]
        );
    }

    #[test]
    fn a_volume_that_fills_up_grows_until_it_is_calm_and_never_shrinks() {
        let mut postgres = part("spec.postgres", (1000, 2000), (2, 4));
        postgres.pods = 2;
        postgres.volume = Some(Volume {
            bytes: 100 << 30,
            field: "spec.postgres.storage",
        });
        postgres.measured.volume_used = Some(5.0 * GIB);
        assert_eq!(told(&[postgres.clone()]), []);
        postgres.measured.volume_used = Some(90.0 * GIB);
        assert_eq!(
            told(&[postgres]),
            [row("spec.postgres.storage", "100Gi", "200Gi", "20.00")]
        );
    }

    #[test]
    fn what_is_short_comes_first_and_ten_are_the_most() {
        let mut parts = Vec::new();
        for section in ["spec.a", "spec.b", "spec.c", "spec.d", "spec.e", "spec.f"] {
            let mut part = part(section, (4000, 8000), (8, 16));
            part.measured.cpu_p95 = Some(0.5);
            part.measured.memory_p95 = Some(GIB);
            parts.push(part);
        }
        parts[5].measured.memory_p95 = Some(15.0 * GIB);
        let found = told(&parts);
        assert_eq!(found.len(), 10);
        assert_eq!(found[0].0, "spec.f.pod.resources.limits.memory");
        assert!(found[1].0.ends_with("requests.cpu"), "{found:?}");
    }

    #[test]
    fn nothing_is_recommended_below_what_was_used_and_a_quarter_more() {
        let amounts = [60_u64, 125, 250, 400, 1000, 1500, 2000, 4000];
        let pairs = amounts
            .iter()
            .flat_map(|request| amounts.iter().map(move |limit| (*request, *limit)));
        for (request, limit) in pairs.filter(|(request, limit)| request <= limit) {
            for used in (1..=4000_u32).step_by(37).filter(|used| u64::from(*used) <= limit) {
                let mut part = part("spec.api", (request, limit), (1, 2));
                part.measured = Measured {
                    cpu_p95: Some(f64::from(used) / 1000.0),
                    ..Measured::default()
                };
                let prices = guide();
                let section = Section {
                    parts: vec![&part],
                    prices: &prices,
                };
                let Some(change) = section.resource(Resource::Cpu) else {
                    continue;
                };
                let case = format!("{request} {limit} {used}: {} to {}", change.field, change.to);
                assert!(change.to != change.from, "{case}");
                // A request cannot be beyond the limit, which is raised by itself when it is short.
                let most = if change.short { u64::MAX } else { limit };
                assert!(change.to >= with_headroom(used.into()).min(most), "{case}");
            }
        }
    }
}
