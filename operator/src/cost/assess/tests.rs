//! The bill, what it buys and what is told of it, with the guide's own figures.

use selextract_crds::CostTargets;

use super::*;
use crate::cost::{Amount, Measured, Volume, money::tests::guide};

const GIB: f64 = 1_073_741_824.0;

fn now() -> Timestamp {
    "2026-11-26T08:00:00Z".parse().unwrap()
}

fn cost(discount: u8) -> Cost {
    Cost {
        currency: "USD".to_owned(),
        prices: guide(),
        commitment_discount_percent: discount,
        targets: CostTargets::default(),
    }
}

/// The guide's platform: four services of 2 vCPU and 8 GB, 500 GB of SSD, 1 TB of transfer ("Current Resource Costs").
fn platform() -> Inputs {
    let service = |component: &'static str| Part {
        component,
        section: component,
        pods: 1,
        cpu: Amount {
            request: 2000,
            limit: Some(4000),
        },
        memory: Amount {
            request: 8 << 30,
            limit: Some(16 << 30),
        },
        ..Part::default()
    };
    let mut parts = ["api", "worker", "postgres", "redis-cache"].map(service).to_vec();
    parts[0].measured.sent = Some(1000.0 * GIB / MONTH);
    parts[2].volume = Some(Volume {
        bytes: 500 << 30,
        field: "spec.postgres.storage",
    });
    Inputs {
        parts,
        ..Inputs::default()
    }
}

fn efficiency_of(status: &CostStatus, name: &str) -> (Option<String>, String) {
    let one = status.efficiency.iter().find(|one| one.name == name).unwrap();
    (one.value.clone(), one.level.clone())
}

#[test]
fn the_guides_platform_costs_what_the_guide_says() {
    let status = assess(&cost(0), &platform(), now());
    assert_eq!(
        [&status.cpu, &status.memory, &status.storage, &status.monthly],
        ["400.00", "160.00", "50.00", "700.00"]
    );
    assert_eq!(status.network.as_deref(), Some("90.00"));
    assert_eq!(status.components[2].now, "190.00", "100 + 40 + 50");
    assert_eq!(status.saved_by_commitment, None);
}

#[test]
fn a_commitment_of_thirty_percent_takes_168_off_560() {
    let status = assess(&cost(30), &platform(), now());
    assert_eq!(status.monthly, "532.00");
    assert_eq!(status.saved_by_commitment.as_deref(), Some("168.00"));
}

#[test]
fn the_mean_number_of_pods_is_what_is_paid_for() {
    let mut inputs = platform();
    inputs.parts[1].pods = 5;
    inputs.parts[1].measured.mean_pods = Some(2.5);
    let status = assess(&cost(0), &inputs, now());
    assert_eq!(status.components[1].now, "700.00");
    assert_eq!(status.components[1].measured.as_deref(), Some("350.00"));
    assert_eq!(status.monthly, "910.00", "700 - 140 + 350");
}

#[test]
fn scaling_saved_what_the_maximum_held_all_month_would_have_cost_more() {
    let mut inputs = platform();
    assert_eq!(assess(&cost(0), &inputs, now()).saved_by_scaling, None);
    inputs.parts[1].most_pods = Some(20);
    assert_eq!(
        assess(&cost(0), &inputs, now()).saved_by_scaling,
        None,
        "no mean is known"
    );
    inputs.parts[1].measured.mean_pods = Some(2.5);
    let status = assess(&cost(0), &inputs, now());
    assert_eq!(status.saved_by_scaling.as_deref(), Some("2450.00"), "17.5 of 140");
}

#[test]
fn what_a_dollar_buys_is_held_against_the_guides_targets() {
    let mut inputs = platform();
    // 700 dollars at 1,000 requests, 100 tasks and 10 users each, just so.
    inputs.requests_per_second = Some(700_000.0 / MONTH);
    inputs.tasks_per_second = Some(69_999.0 / MONTH);
    inputs.active_users = Some(70.0);
    let status = assess(&cost(0), &inputs, now());
    assert_eq!(efficiency_of(&status, "requests"), (Some("1000".into()), "Met".into()));
    assert_eq!(efficiency_of(&status, "tasks"), (Some("99.99".into()), "Missed".into()));
    assert_eq!(efficiency_of(&status, "users"), (Some("0.10".into()), "Missed".into()));
}

#[test]
fn what_is_not_measured_is_unknown_and_never_met() {
    let mut inputs = platform();
    inputs.requests_per_second = Some(f64::NAN);
    let status = assess(&cost(0), &inputs, now());
    for one in &status.efficiency {
        assert_eq!(
            (one.value.as_deref(), one.level.as_str()),
            (None, "Unknown"),
            "{}",
            one.name
        );
    }
    let nothing = assess(&cost(0), &Inputs::default(), now());
    assert_eq!(nothing.monthly, "0.00");
    assert_eq!(nothing.network, None);
}

#[test]
fn nothing_costs_nothing_and_divides_by_nothing() {
    let inputs = Inputs {
        requests_per_second: Some(10.0),
        ..Inputs::default()
    };
    let status = assess(&cost(0), &inputs, now());
    assert_eq!(efficiency_of(&status, "requests"), (None, "Unknown".into()));
}

#[test]
fn use_is_held_against_sixty_seventy_and_eighty_percent_of_what_is_reserved() {
    let mut inputs = platform();
    inputs.parts[0].pods = 2;
    inputs.parts[0].measured = Measured {
        cpu_mean: Some(1.5),
        memory_mean: Some(5.0 * GIB),
        ..Measured::default()
    };
    inputs.parts[1].measured.cpu_mean = Some(0.6);
    inputs.parts[2].measured.volume_used = Some(400.0 * GIB);
    let status = assess(&cost(0), &inputs, now());
    // (2 x 1.5 + 0.6) of (2 x 2 + 2) cores, 5 of 8 GiB, 400 of 500 GiB; the others are not measured and do not count.
    assert_eq!(efficiency_of(&status, "cpuUsed"), (Some("60%".into()), "Met".into()));
    assert_eq!(
        efficiency_of(&status, "memoryUsed"),
        (Some("62.50%".into()), "Missed".into())
    );
    assert_eq!(
        efficiency_of(&status, "storageUsed"),
        (Some("80%".into()), "Met".into())
    );
}

#[test]
fn a_window_is_not_longer_than_what_was_measured() {
    let days = |days: u64| Duration::from_hours(days * 24);
    for (hours, expected) in [
        (None, Duration::from_hours(1)),
        (Some(f64::NAN), Duration::from_hours(1)),
        (Some(23.0), Duration::from_hours(1)),
        (Some(24.0), days(1)),
        (Some(200.0), days(7)),
        (Some(720.0), days(30)),
    ] {
        assert_eq!(window(hours), expected, "{hours:?}");
    }
}

#[test]
fn the_status_is_written_hourly_and_when_its_meaning_changes() {
    let old = assess(&cost(0), &platform(), now());
    let after = |minutes| now() + SignedDuration::from_mins(minutes);
    let mut dearer = platform();
    dearer.parts[0].pods = 2;
    let dearer = assess(&cost(0), &dearer, now());
    assert!(should_write(None, &old, now()));
    assert!(
        !should_write(Some(&old), &dearer, after(59)),
        "figures alone wait for the hour"
    );
    assert!(should_write(Some(&old), &dearer, after(60)));
    let mut busy = platform();
    busy.active_users = Some(1.0);
    let busy = assess(&cost(0), &busy, now());
    assert!(!should_write(Some(&old), &busy, after(4)));
    assert!(should_write(Some(&old), &busy, after(5)));
}

#[test]
fn live_figures_are_those_of_the_status() {
    let mut inputs = platform();
    inputs.parts[2].measured.volume_used = Some(400.0 * GIB);
    inputs.active_users = Some(7000.0);
    let live = live(&assess(&cost(30), &inputs, now()));
    let value = |name: &str, of: &str| {
        let found = live.iter().find(|one| one.name == name && one.labels[0].1 == of);
        found.map(|one| one.value)
    };
    assert_eq!(value("selextract_cost_monthly", "cpu"), Some(280.0));
    assert_eq!(value("selextract_cost_component_monthly", "worker"), Some(98.0));
    assert_eq!(value("selextract_cost_used_ratio", "storage"), Some(0.8));
    assert_eq!(value("selextract_cost_per_unit", "users"), Some(13.15));
    assert_eq!(value("selextract_cost_saved_monthly", "commitment"), Some(168.0));
    assert_eq!(value("selextract_cost_per_unit", "requests"), None);
}
