//! From parts and prices to `status.cost`. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use selextract_crds::{ComponentCostStatus, CostStatus, EfficiencyStatus};

use super::{Money, Part, Prices, part::whole, sizing};
use crate::{moment::second, monitoring::live::Live, validated::Cost};

/// Seconds of a month of 730 hours.
const MONTH: f64 = 730.0 * 3600.0;
/// The status is written anew after so long.
const EVERY: SignedDuration = SignedDuration::from_hours(1);

/// The windows that are measured over, longest first.
pub const WINDOWS: [Duration; 3] = [
    Duration::from_hours(30 * 24),
    Duration::from_hours(7 * 24),
    Duration::from_hours(24),
];

/// The longest window that the platform was measured for, or else an hour: a rate over more than that would be too low.
pub fn window(measured_hours: Option<f64>) -> Duration {
    let measured = measured_hours.and_then(whole).unwrap_or_default();
    let fits = |window: &&Duration| window.as_secs() / 3600 <= measured;
    WINDOWS.iter().find(fits).copied().unwrap_or(Duration::from_hours(1))
}

/// What was measured of the platform as a whole over the window; `None` while it is not known. Queries are those of `monitoring::queries`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inputs {
    /// The parts, with what was measured of each.
    pub parts: Vec<Part>,
    /// `api::REQUEST_RATE`.
    pub requests_per_second: Option<f64>,
    /// `slo::TASKS`.
    pub tasks_per_second: Option<f64>,
    /// `work::ACTIVE_USERS`.
    pub active_users: Option<f64>,
}

/// What a part costs in a month.
#[derive(Clone, Copy, Debug, Default)]
struct Bill {
    cpu: Money,
    memory: Money,
    storage: Money,
    network: Option<Money>,
}

impl Bill {
    fn of(part: &Part, millipods: u64, prices: &Prices) -> Self {
        let volumes = part.volume.map_or(0, |volume| u128::from(volume.bytes)) * u128::from(part.pods);
        let sent = part.measured.sent.and_then(|rate| whole(rate * MONTH));
        Self {
            cpu: prices.cpu(part.cpu.request, millipods),
            memory: prices.memory(part.memory.request, millipods),
            storage: prices.storage(volumes),
            network: sent.map(|bytes| prices.network(bytes.into())),
        }
    }

    /// At the mean number of pods where that is known, else at that of now.
    fn measured(part: &Part, prices: &Prices) -> Self {
        Self::of(part, part.mean_millipods().unwrap_or(part.millipods()), prices)
    }

    fn total(&self) -> Money {
        self.cpu + self.memory + self.storage + self.network.unwrap_or_default()
    }
}

/// What the platform costs, what comes of it, and what to change.
pub fn assess(cost: &Cost, inputs: &Inputs, now: Timestamp) -> CostStatus {
    let prices = cost.prices.committed(cost.commitment_discount_percent);
    let bills = |prices: &Prices| -> Vec<Bill> {
        let of = |part: &Part| Bill::measured(part, prices);
        inputs.parts.iter().map(of).collect()
    };
    let paid = bills(&prices);
    let sum = |of: fn(&Bill) -> Money| -> Money { paid.iter().map(of).sum() };
    let total = sum(Bill::total);
    let full: Money = bills(&cost.prices).iter().map(Bill::total).sum();
    let networks: Vec<Money> = paid.iter().filter_map(|bill| bill.network).collect();
    CostStatus {
        time: second(now),
        currency: cost.currency.clone(),
        monthly: total.to_string(),
        cpu: sum(|bill| bill.cpu).to_string(),
        memory: sum(|bill| bill.memory).to_string(),
        storage: sum(|bill| bill.storage).to_string(),
        network: (!networks.is_empty()).then(|| networks.iter().copied().sum::<Money>().to_string()),
        components: inputs.parts.iter().map(|part| component(part, &prices)).collect(),
        efficiency: efficiency(cost, inputs, total),
        recommendations: sizing::recommend(&inputs.parts, &prices),
        saved_by_scaling: saved_by_scaling(&inputs.parts, &prices).map(|money| money.to_string()),
        saved_by_commitment: (cost.commitment_discount_percent > 0).then(|| (full - total).to_string()),
    }
}

fn component(part: &Part, prices: &Prices) -> ComponentCostStatus {
    let at = |millipods| Bill::of(part, millipods, prices).total().to_string();
    ComponentCostStatus {
        name: part.component.to_owned(),
        replicas: i32::try_from(part.pods).unwrap_or(i32::MAX),
        now: at(part.millipods()),
        measured: part.mean_millipods().map(at),
    }
}

/// Against the maximum held all month (guide: "Auto-scaling").
fn saved_by_scaling(parts: &[Part], prices: &Prices) -> Option<Money> {
    let of = |part: &Part| {
        let (most, mean) = (u64::from(part.most_pods?) * 1000, part.mean_millipods()?);
        let reserved = |millipods| {
            let bill = Bill::of(part, millipods, prices);
            bill.cpu + bill.memory
        };
        Some(reserved(most) - reserved(mean))
    };
    let saved: Vec<Money> = parts.iter().filter_map(of).collect();
    (!saved.is_empty()).then(|| saved.into_iter().sum())
}

/// The guide's "Performance per Dollar Metrics".
fn efficiency(cost: &Cost, inputs: &Inputs, total: Money) -> Vec<EfficiencyStatus> {
    let a_month = |rate: Option<f64>| rate.and_then(|rate| whole(rate * MONTH));
    let users = inputs.active_users.and_then(whole);
    let targets = &cost.targets;
    let bought = [
        (
            "requests",
            a_month(inputs.requests_per_second),
            targets.requests_per_unit,
        ),
        ("tasks", a_month(inputs.tasks_per_second), targets.tasks_per_unit),
        ("users", users, targets.users_per_unit),
    ];
    let bought = bought.map(|(name, amount, target)| {
        let hundredths = amount.and_then(|amount| per_unit(amount, total));
        held(name, hundredths, u128::from(target), |number| number)
    });
    let used = [
        ("cpuUsed", used_cpu(&inputs.parts), targets.cpu_percent),
        ("memoryUsed", used_memory(&inputs.parts), targets.memory_percent),
        ("storageUsed", used_storage(&inputs.parts), targets.storage_percent),
    ];
    let used = used.map(|(name, pair, target)| {
        let hundredths = pair.and_then(|(used, reserved)| (used * 10_000).checked_div(reserved));
        held(name, hundredths, u128::from(target), |number| format!("{number}%"))
    });
    bought.into_iter().chain(used).collect()
}

/// What a unit of the currency buys, in hundredths.
fn per_unit(amount: u64, total: Money) -> Option<u128> {
    (u128::from(amount) * 100 * 1_000_000).checked_div(total.size())
}

fn held(name: &str, hundredths: Option<u128>, target: u128, text: fn(String) -> String) -> EfficiencyStatus {
    let number = |hundredths: u128| match (hundredths / 100, hundredths % 100) {
        (whole, 0) => whole.to_string(),
        (whole, rest) => format!("{whole}.{rest:02}"),
    };
    let level = match hundredths {
        None => "Unknown",
        Some(hundredths) if hundredths >= target * 100 => "Met",
        Some(_) => "Missed",
    };
    EfficiencyStatus {
        name: name.to_owned(),
        value: hundredths.map(|hundredths| text(number(hundredths))),
        target: text(target.to_string()),
        level: level.to_owned(),
    }
}

type Pair = Option<(u128, u128)>;

/// Millicores that are used and reserved by the parts of which the use is known.
fn used_cpu(parts: &[Part]) -> Pair {
    over(parts, |part| {
        let mean = part.measured.cpu_mean.and_then(|cores| whole(cores * 1000.0))?;
        Some((mean.into(), part.cpu.request.into()))
    })
}

/// Bytes that are used and reserved by the parts of which the use is known.
fn used_memory(parts: &[Part]) -> Pair {
    over(parts, |part| {
        let mean = part.measured.memory_mean.and_then(whole)?;
        Some((mean.into(), part.memory.request.into()))
    })
}

fn used_storage(parts: &[Part]) -> Pair {
    over(parts, |part| {
        let used = part.measured.volume_used.and_then(whole)?;
        Some((used.into(), part.volume?.bytes.into()))
    })
}

/// The sums over all pods of what is used and reserved of one pod; `None` where nothing is known.
fn over(parts: &[Part], of: impl Fn(&Part) -> Pair) -> Pair {
    let of_all = |part: &Part| {
        let (used, reserved) = of(part)?;
        let pods = u128::from(part.pods);
        Some((used * pods, reserved * pods))
    };
    let known: Vec<(u128, u128)> = parts.iter().filter_map(of_all).collect();
    let sum = |side: fn(&(u128, u128)) -> u128| -> u128 { known.iter().map(side).sum() };
    (!known.is_empty()).then(|| (sum(|pair| pair.0), sum(|pair| pair.1)))
}

/// Whether the status is due: once an hour, and when a recommendation comes or goes, or a target is missed or met, at most once in five minutes.
pub fn should_write(old: Option<&CostStatus>, new: &CostStatus, now: Timestamp) -> bool {
    let Some((old, written)) = old.and_then(|old| Some((old, old.time.parse::<Timestamp>().ok()?))) else {
        return true;
    };
    let meaning = |status: &CostStatus| {
        let levels = status
            .efficiency
            .iter()
            .map(|one| (one.name.clone(), one.level.clone()));
        let fields = status.recommendations.iter();
        let mut fields: Vec<_> = fields.map(|one| (one.field.clone(), one.to.clone())).collect();
        fields.sort();
        (levels.collect::<Vec<_>>(), fields, status.currency.clone())
    };
    let age = now.duration_since(written);
    age >= EVERY || (age >= SignedDuration::from_mins(5) && meaning(old) != meaning(new))
}

/// The figures of now, for Prometheus. Amounts are in the currency.
pub fn live(status: &CostStatus) -> Vec<Live> {
    let number = |text: &str| text.trim_end_matches('%').parse::<f64>().ok();
    let kinds = [
        ("cpu", Some(&status.cpu)),
        ("memory", Some(&status.memory)),
        ("storage", Some(&status.storage)),
        ("network", status.network.as_ref()),
    ];
    let kinds = kinds.into_iter().filter_map(|(kind, text)| {
        Some(Live::labeled(
            "selextract_cost_monthly",
            "resource",
            kind,
            number(text?)?,
        ))
    });
    let components = status.components.iter().filter_map(|part| {
        let text = part.measured.as_ref().unwrap_or(&part.now);
        let name = "selextract_cost_component_monthly";
        Some(Live::labeled(name, "component", part.name.as_str(), number(text)?))
    });
    let efficiency = status.efficiency.iter().filter_map(|one| {
        let (name, scale) = if one.target.ends_with('%') {
            ("selextract_cost_used_ratio", 0.01)
        } else {
            ("selextract_cost_per_unit", 1.0)
        };
        let value = number(one.value.as_ref()?)? * scale;
        Some(Live::labeled(name, "of", one.name.trim_end_matches("Used"), value))
    });
    let saved = [
        ("scaling", &status.saved_by_scaling),
        ("commitment", &status.saved_by_commitment),
    ];
    let saved = saved.into_iter().filter_map(|(by, text)| {
        Some(Live::labeled(
            "selextract_cost_saved_monthly",
            "by",
            by,
            number(text.as_ref()?)?,
        ))
    });
    kinds.chain(components).chain(efficiency).chain(saved).collect()
}

#[cfg(test)]
mod tests;
