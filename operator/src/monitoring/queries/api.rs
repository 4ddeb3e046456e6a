//! What the API's own metrics tell: rates, times, errors, sign-ins (guide: "Application Metrics", "Response Time Budget").

use super::{Query, Unit};

/// Requests a second.
pub const REQUEST_RATE: Query = Query {
    name: "http_request_rate",
    help: "Requests a second (guide: Request Rate).",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",$scope}[$window]))",
};

/// Requests a second by route.
pub const REQUEST_RATE_BY_ROUTE: Query = Query {
    name: "http_request_rate_by_route",
    help: "Requests a second by route.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster, method, route) (rate(http_requests_total{component=\"api\",$scope}[$window]))",
};

/// Successful operations a second.
pub const THROUGHPUT: Query = Query {
    name: "http_throughput",
    help: "Successful operations a second (guide: Throughput).",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",code=~\"[23]xx\",$scope}[$window]))",
};

/// The share of 5xx.
pub const ERROR_RATIO: Query = Query {
    name: "http_error_ratio",
    help: "The share of requests that were answered with 5xx (guide: Error rate).",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",code=~\"5..\",$scope}[$window])) \
               / sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",$scope}[$window]))",
};

/// The share of 4xx.
pub const CLIENT_ERROR_RATIO: Query = Query {
    name: "http_client_error_ratio",
    help: "The share of requests that were answered with 4xx (guide: 4xx and 5xx error percentages).",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",code=~\"4..\",$scope}[$window])) \
               / sum by (namespace, cluster) (rate(http_requests_total{component=\"api\",$scope}[$window]))",
};

/// Answers a second by class of status.
pub const RATE_BY_CODE: Query = Query {
    name: "http_rate_by_code",
    help: "Answers a second by class of status.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster, code) (rate(http_requests_total{component=\"api\",$scope}[$window]))",
};

/// 5xx a second by route.
pub const ERRORS_BY_ROUTE: Query = Query {
    name: "http_errors_by_route",
    help: "Answers of 5xx a second by route.",
    unit: Unit::PerSecond,
    template: "sum by (namespace, cluster, method, route) (rate(http_requests_total{component=\"api\",code=~\"5..\",$scope}[$window]))",
};

/// The median of response times.
pub const RESPONSE_P50: Query = Query {
    name: "http_response_p50",
    help: "Half of the requests are answered within it, previews apart, which wait for a site.",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.5, sum by (namespace, cluster, le) (rate(http_request_duration_seconds_bucket{component=\"api\",route!=\"/api/v1/tasks:preview\",$scope}[$window])))",
};

/// P95 of response times.
pub const RESPONSE_P95: Query = Query {
    name: "http_response_p95",
    help: "95 % of the requests are answered within it, previews apart, which wait for a site (guide: API response time P95).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(http_request_duration_seconds_bucket{component=\"api\",route!=\"/api/v1/tasks:preview\",$scope}[$window])))",
};

/// P99 of response times.
pub const RESPONSE_P99: Query = Query {
    name: "http_response_p99",
    help: "99 % of the requests are answered within it, previews apart, which wait for a site.",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.99, sum by (namespace, cluster, le) (rate(http_request_duration_seconds_bucket{component=\"api\",route!=\"/api/v1/tasks:preview\",$scope}[$window])))",
};

/// P95 by route.
pub const RESPONSE_P95_BY_ROUTE: Query = Query {
    name: "http_response_p95_by_route",
    help: "95 % of a route's requests are answered within it.",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, method, route, le) (rate(http_request_duration_seconds_bucket{component=\"api\",$scope}[$window])))",
};

/// P95 now over P95 a week ago.
pub const RESPONSE_TREND: Query = Query {
    name: "http_response_trend",
    help: "P95 of response times, previews apart, over that at the same time a week ago; a week, because the guide's weekend is 40 % calmer.",
    unit: Unit::Ratio,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(http_request_duration_seconds_bucket{component=\"api\",route!=\"/api/v1/tasks:preview\",$scope}[$window]))) \
               / histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(http_request_duration_seconds_bucket{component=\"api\",route!=\"/api/v1/tasks:preview\",$scope}[$window] offset 1w)))",
};

/// P95 of signing in.
pub const LOGIN_P95: Query = Query {
    name: "login_p95",
    help: "95 % of sign-ins are answered within it (guide: Response Time Budget, User Login).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(http_request_duration_seconds_bucket{component=\"api\",method=\"POST\",route=\"/api/v1/auth/login\",$scope}[$window])))",
};

/// P95 of the dashboard.
pub const DASHBOARD_P95: Query = Query {
    name: "dashboard_p95",
    help: "95 % of the dashboard's requests are answered within it (guide: Response Time Budget, Dashboard Load).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(http_request_duration_seconds_bucket{component=\"api\",method=\"GET\",route=\"/api/v1/dashboard/stats\",$scope}[$window])))",
};

/// P95 of creating a task.
pub const TASK_CREATION_P95: Query = Query {
    name: "task_creation_p95",
    help: "95 % of new tasks are accepted within it (guide: Response Time Budget, Task Creation).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(http_request_duration_seconds_bucket{component=\"api\",method=\"POST\",route=\"/api/v1/tasks\",$scope}[$window])))",
};

/// P95 of results.
pub const TASK_RESULTS_P95: Query = Query {
    name: "task_results_p95",
    help: "95 % of requests for results are answered within it (guide: Response Time Budget, Task Results).",
    unit: Unit::Seconds,
    template: "histogram_quantile(0.95, sum by (namespace, cluster, le) (rate(http_request_duration_seconds_bucket{component=\"api\",method=\"GET\",route=\"/api/v1/tasks/{id}/results\",$scope}[$window])))",
};

/// The share of sign-ins that succeed.
pub const LOGIN_SUCCESS_RATIO: Query = Query {
    name: "login_success_ratio",
    help: "The share of sign-ins that succeed (guide: Login success rate).",
    unit: Unit::Ratio,
    template: "sum by (namespace, cluster) (rate(selextract_logins_total{component=\"api\",outcome=\"succeeded\",$scope}[$window])) \
               / sum by (namespace, cluster) (rate(selextract_logins_total{component=\"api\",$scope}[$window]))",
};

pub(super) const ALL: &[Query] = &[
    REQUEST_RATE,
    REQUEST_RATE_BY_ROUTE,
    THROUGHPUT,
    ERROR_RATIO,
    CLIENT_ERROR_RATIO,
    RATE_BY_CODE,
    ERRORS_BY_ROUTE,
    RESPONSE_P50,
    RESPONSE_P95,
    RESPONSE_P99,
    RESPONSE_P95_BY_ROUTE,
    RESPONSE_TREND,
    LOGIN_P95,
    DASHBOARD_P95,
    TASK_CREATION_P95,
    TASK_RESULTS_P95,
    LOGIN_SUCCESS_RATIO,
];
