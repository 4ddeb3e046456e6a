//! How API and workers are sized: what has to fit together. Pure.

use selextract_crds::{ApiScaling, ScalingMode, ScalingPause, ScalingSchedule, ScalingSpec, WorkerScaling};
use selextract_task::Duration;

use super::check::Check;
use crate::scaling::{ApiPolicy, Limits, Pause, Peak, WorkerPolicy};

/// What is sized.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scaling {
    /// The API.
    pub api: Sizing<ApiPolicy>,
    /// The workers.
    pub worker: Sizing<WorkerPolicy>,
}

/// Who sets a number of pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Sizing<P> {
    /// The spec.
    #[default]
    Fixed,
    /// The operator, by this policy.
    Operator(P),
    /// Somebody else.
    External,
}

impl<P> Sizing<P> {
    /// The operator's policy, where there is one.
    pub fn policy(&self) -> Option<&P> {
        match self {
            Self::Operator(policy) => Some(policy),
            Self::Fixed | Self::External => None,
        }
    }
}

impl Check {
    pub(super) fn scaling(&mut self, spec: &ScalingSpec, concurrency: u8, measured: bool) -> Scaling {
        let pause = pause(spec);
        let api = spec.api.as_ref().map(|api| self.api_scaling(api, pause));
        let worker = spec
            .worker
            .as_ref()
            .map(|worker| self.worker_scaling(worker, concurrency, pause));
        let scaling = Scaling {
            api: api.unwrap_or_default(),
            worker: worker.unwrap_or_default(),
        };
        if !measured && (scaling.api.policy().is_some() || scaling.worker.policy().is_some()) {
            let cure = "spec.scaling needs measurements; set it to Managed, or to External with the server's URL";
            self.refuse("NotMeasured", "spec.monitoring.prometheus.provider", "None", cure);
        }
        scaling
    }

    fn api_scaling(&mut self, spec: &ApiScaling, pause: Pause) -> Sizing<ApiPolicy> {
        let field = "spec.scaling.api";
        let limits = self.limits(
            field,
            (spec.min_replicas, spec.max_replicas),
            (spec.stabilization_window, spec.cooldown),
            &spec.schedules,
            pause,
        );
        self.at_least(
            "spec.scaling.api.triggers.latencyP95",
            spec.triggers.latency_p95,
            Duration::from_millis(1),
        );
        self.window("spec.scaling.api.triggers.cpuFor", spec.triggers.cpu_for);
        let policy = ApiPolicy {
            limits,
            cpu: share(spec.triggers.cpu_percent),
            cpu_for: spec.triggers.cpu_for.get(),
            latency: spec.triggers.latency_p95.get().as_secs_f64(),
            errors: share(spec.triggers.error_percent),
        };
        sizing(spec.mode, policy)
    }

    fn worker_scaling(&mut self, spec: &WorkerScaling, concurrency: u8, pause: Pause) -> Sizing<WorkerPolicy> {
        let field = "spec.scaling.worker";
        let limits = self.limits(
            field,
            (spec.min_replicas, spec.max_replicas),
            (spec.stabilization_window, spec.cooldown),
            &spec.schedules,
            pause,
        );
        self.at_least(
            "spec.scaling.worker.triggers.wait",
            spec.triggers.wait,
            Duration::from_secs(1),
        );
        let policy = WorkerPolicy {
            limits,
            queue: f64::from(spec.triggers.queue_length),
            wait: spec.triggers.wait.get().as_secs_f64(),
            cpu: share(spec.triggers.cpu_percent),
            concurrency: concurrency.into(),
        };
        sizing(spec.mode, policy)
    }

    fn limits(
        &mut self,
        field: &str,
        (min, max): (u8, u8),
        (stabilization, cooldown): (Duration, Duration),
        schedules: &[ScalingSchedule],
        pause: Pause,
    ) -> Limits {
        self.window(&format!("{field}.stabilizationWindow"), stabilization);
        self.window(&format!("{field}.cooldown"), cooldown);
        let mut peaks = Vec::new();
        for (index, schedule) in schedules.iter().enumerate() {
            let (cron, zone) = (schedule.cron.as_str(), schedule.time_zone.as_str());
            match Peak::parse(cron, zone, schedule.duration.get(), schedule.min_replicas.into()) {
                Ok(peak) => peaks.push(peak),
                Err((part, cure)) => {
                    let value = if part == "cron" { cron } else { zone };
                    self.refuse(
                        "InvalidSchedule",
                        &format!("{field}.schedules[{index}].{part}"),
                        value,
                        cure,
                    );
                }
            }
        }
        Limits {
            min: min.into(),
            max: max.into(),
            stabilization: stabilization.get(),
            cooldown: cooldown.get(),
            peaks,
            pause,
        }
    }

    /// A time that is looked back on: what is kept is bounded.
    fn window(&mut self, field: &str, window: Duration) {
        if window > Duration::from_secs(3600) {
            let cure = "at most an hour is looked back on; write 1h or less";
            self.refuse("InvalidDuration", field, window, cure);
        }
    }
}

fn sizing<P>(mode: ScalingMode, policy: P) -> Sizing<P> {
    match mode {
        ScalingMode::Operator => Sizing::Operator(policy),
        ScalingMode::External => Sizing::External,
    }
}

fn pause(spec: &ScalingSpec) -> Pause {
    Pause {
        inward: matches!(spec.paused, ScalingPause::In | ScalingPause::Both),
        outward: matches!(spec.paused, ScalingPause::Out | ScalingPause::Both),
        dry_run: spec.dry_run,
    }
}

fn share(percent: u8) -> f64 {
    f64::from(percent) / 100.0
}
