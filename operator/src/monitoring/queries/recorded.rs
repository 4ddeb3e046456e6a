//! What is looked back at over days, and the same from what was recorded once a minute.
//!
//! A month of an API's requests is, by route, class and pod at every scrape, hundreds of millions of samples, and more than a small
//! Prometheus reads in any time-out. Its sums are 43,200. The rules that record them are [`RULES`]; they reach the managed Prometheus as a
//! file and another one as a `PrometheusRule`. Where they did not, the scrapes themselves are looked at.
//!
//! Each query here has the name, and answers in the form, of the one in [`super::slo`], [`super::api`] or [`super::targets`] that it stands for.

use super::{Query, Unit, api, slo, targets};

/// What is recorded, each as the series `selextract:` and its name.
pub const RULES: [Query; 8] = [
    slo::API_ANSWERS,
    api::REQUEST_RATE,
    slo::FAILED_REQUEST_RATE,
    slo::TASKS,
    slo::SENT,
    targets::TARGETS,
    slo::POD_CPU,
    slo::POD_MEMORY,
];

/// What looks over days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days {
    /// [`slo::BAD_REQUEST_RATIO`].
    pub bad_requests: Query,
    /// [`slo::DOWNTIME_RATIO_OF_DAYS`].
    pub downtime: Query,
    /// [`slo::MEASURED_HOURS`].
    pub measured_hours: Query,
    /// Figures of the platform as a whole: [`api::REQUEST_RATE`], [`slo::TASKS`].
    pub platform: [Query; 2],
    /// Figures by component.
    pub by_component: [Query; 6],
}

/// From the scrapes themselves.
pub const SCRAPED: Days = Days {
    bad_requests: slo::BAD_REQUEST_RATIO,
    downtime: slo::DOWNTIME_RATIO_OF_DAYS,
    measured_hours: slo::MEASURED_HOURS,
    platform: [api::REQUEST_RATE, slo::TASKS],
    by_component: [
        slo::MEAN_PODS,
        slo::CPU_MEAN,
        slo::MEMORY_MEAN,
        slo::CPU_P95,
        slo::MEMORY_P95,
        slo::SENT,
    ],
};

/// From what was recorded.
pub const RECORDED: Days = Days {
    bad_requests: BAD_REQUEST_RATIO,
    downtime: DOWNTIME_RATIO,
    measured_hours: MEASURED_HOURS,
    platform: [REQUEST_RATE, TASKS],
    by_component: [MEAN_PODS, CPU_MEAN, MEMORY_MEAN, CPU_P95, MEMORY_P95, SENT],
};

/// Whether the rules are there: they recorded something in the last two hours.
pub const IS_RECORDED: Query = Query {
    name: "slo_is_recorded",
    help: "The minutes of the last two hours that were recorded; nothing where no rules record.",
    unit: Unit::Count,
    template: "sum by (namespace, cluster) (count_over_time(selextract:slo_api_answers{$scope}[2h]))",
};

/// A sum over the window, for each minute that was measured: what was not there for a while, such as workers at night, counts as nothing then.
macro_rules! mean {
    ($by:literal, $series:literal) => {
        concat!(
            "sum by (namespace, cluster",
            $by,
            ") (sum_over_time(selextract:",
            $series,
            "{$scope}[$window])) / on (namespace, cluster) group_left \
             sum by (namespace, cluster) (count_over_time(selextract:slo_api_answers{$scope}[$window]))"
        )
    };
}

const BAD_REQUEST_RATIO: Query = Query {
    template: "sum by (namespace, cluster) (sum_over_time(selextract:slo_failed_request_rate{$scope}[$window])) \
               / sum by (namespace, cluster) (sum_over_time(selextract:http_request_rate{$scope}[$window]))",
    ..slo::BAD_REQUEST_RATIO
};

const DOWNTIME_RATIO: Query = Query {
    template: "1 - avg by (namespace, cluster) (avg_over_time(selextract:slo_api_answers{$scope}[$window]))",
    ..slo::DOWNTIME_RATIO_OF_DAYS
};

const MEASURED_HOURS: Query = Query {
    template: "count_over_time((group by (namespace, cluster) (selextract:slo_api_answers{$scope}))[$window:1h])",
    ..slo::MEASURED_HOURS
};

const REQUEST_RATE: Query = Query {
    template: mean!("", "http_request_rate"),
    ..api::REQUEST_RATE
};

const TASKS: Query = Query {
    template: mean!("", "cost_tasks_rate"),
    ..slo::TASKS
};

const MEAN_PODS: Query = Query {
    template: mean!(", component", "targets"),
    ..slo::MEAN_PODS
};

const SENT: Query = Query {
    template: mean!(", component", "cost_sent_rate"),
    ..slo::SENT
};

const CPU_MEAN: Query = Query {
    template: "sum by (namespace, cluster, component) (sum_over_time(selextract:cost_pod_cpu{$scope}[$window])) \
               / sum by (namespace, cluster, component) (count_over_time(selextract:cost_pod_cpu{$scope}[$window]))",
    ..slo::CPU_MEAN
};

const MEMORY_MEAN: Query = Query {
    template: "sum by (namespace, cluster, component) (sum_over_time(selextract:cost_pod_memory{$scope}[$window])) \
               / sum by (namespace, cluster, component) (count_over_time(selextract:cost_pod_memory{$scope}[$window]))",
    ..slo::MEMORY_MEAN
};

const CPU_P95: Query = Query {
    template: "max by (namespace, cluster, component) (quantile_over_time(0.95, selextract:cost_pod_cpu{$scope}[$window]))",
    ..slo::CPU_P95
};

const MEMORY_P95: Query = Query {
    template: "max by (namespace, cluster, component) (quantile_over_time(0.95, selextract:cost_pod_memory{$scope}[$window]))",
    ..slo::MEMORY_P95
};

impl Days {
    /// Every query.
    pub fn iter(&self) -> impl Iterator<Item = Query> {
        let single = [self.bad_requests, self.downtime, self.measured_hours];
        single.into_iter().chain(self.platform).chain(self.by_component)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_stands_for_what_is_scraped_and_reads_only_what_is_recorded() {
        for (scraped, recorded) in SCRAPED.iter().zip(RECORDED.iter()) {
            assert_eq!((scraped.name, scraped.unit), (recorded.name, recorded.unit));
            assert_ne!(scraped, recorded);
            let labels = |query: &Query| query.labels().collect::<Vec<_>>();
            assert_eq!(labels(&scraped), labels(&recorded), "{}", recorded.name);
            let selectors: Vec<_> = recorded.template.split("selextract:").skip(1).collect();
            assert_eq!(selectors.len(), recorded.template.matches("{$scope}").count());
            for selector in selectors {
                let name = selector.split_once('{').unwrap().0;
                assert!(RULES.iter().any(|rule| rule.name == name), "{name}");
            }
        }
    }
}
