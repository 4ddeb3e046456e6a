//! What is paid for: the parts of a platform with what they reserve and what was measured of them. Pure.

/// One component: what it reserves, and what was measured of it over the window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// As in the label `app.kubernetes.io/component`.
    pub component: &'static str,
    /// The section of the spec that sizes its pods, such as `spec.api`. Parts of one section are sized together.
    pub section: &'static str,
    /// Pods now.
    pub pods: u32,
    /// The most pods that scaling may hold; `None` where the number is fixed.
    pub most_pods: Option<u32>,
    /// CPU of a pod, in thousandths of a core.
    pub cpu: Amount,
    /// Memory of a pod, in bytes.
    pub memory: Amount,
    /// The volume of each pod.
    pub volume: Option<Volume>,
    /// What was measured.
    pub measured: Measured,
}

/// What a pod reserves, and what it cannot exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// The request, which is paid for.
    pub request: u64,
    /// The limit.
    pub limit: Option<u64>,
}

/// A volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Its size in bytes.
    pub bytes: u64,
    /// The field that gives it.
    pub field: &'static str,
}

/// What was measured over the window; `None` while it is not known, and `NaN` counts as that. Queries are those of `monitoring::queries`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// `slo::MEAN_PODS`.
    pub mean_pods: Option<f64>,
    /// `slo::CPU_MEAN`: cores of a pod.
    pub cpu_mean: Option<f64>,
    /// `slo::MEMORY_MEAN`: bytes of a pod.
    pub memory_mean: Option<f64>,
    /// `slo::CPU_P95`: cores of the busiest pod.
    pub cpu_p95: Option<f64>,
    /// `slo::MEMORY_P95`: bytes of the largest pod; of queue and cache the greater of that and `slo::REDIS_MEMORY_P95`.
    pub memory_p95: Option<f64>,
    /// `slo::SENT`: bytes a second of all pods.
    pub sent: Option<f64>,
    /// `resources::STORAGE`: bytes of the volume.
    pub volume_used: Option<f64>,
}

impl Part {
    /// Pods now, in thousandths.
    pub fn millipods(&self) -> u64 {
        u64::from(self.pods) * 1000
    }

    /// The mean number of pods in thousandths, where it is known.
    pub fn mean_millipods(&self) -> Option<u64> {
        self.measured.mean_pods.and_then(|pods| whole(pods * 1000.0))
    }
}

/// A measured value as a whole number: `None` for what is not finite, negative or absurdly large.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked"
)]
pub fn whole(value: f64) -> Option<u64> {
    (value.is_finite() && (0.0..1e18).contains(&value)).then(|| value.round() as u64)
}
