//! What keeps pods from running, in words for a condition: without pod names and clocks, so that they change only with the cause. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::build::FOREIGN_DATA_EXIT_CODE;

const LONGEST_MESSAGE: usize = 600;
const COMPONENT: &str = "app.kubernetes.io/component";

/// What is wrong with the pods of a component; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A server found data of another cluster on its volume.
    ForeignData,
    /// An image cannot be pulled.
    ImageCannotBePulled,
    /// A Secret, `ConfigMap` or key that a container needs is missing.
    ConfigurationMissing,
    /// No node takes the pod.
    Unschedulable,
    /// A container ends again and again.
    CrashLoop,
    /// The namespace's quota or an admission rule refuses the pods.
    PodsRefused,
}

impl Cause {
    /// The condition's reason.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForeignData => "ForeignData",
            Self::ImageCannotBePulled => "ImageCannotBePulled",
            Self::ConfigurationMissing => "ConfigurationMissing",
            Self::Unschedulable => "Unschedulable",
            Self::CrashLoop => "CrashLoop",
            Self::PodsRefused => "PodsRefused",
        }
    }
}

/// A cause with its words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// What kind of trouble.
    pub cause: Cause,
    /// One sentence that names the thing.
    pub message: String,
}

/// The worst trouble of each component's pods, by the component's label.
pub fn troubles(pods: &[Pod]) -> BTreeMap<String, Trouble> {
    let mut worst: BTreeMap<String, Trouble> = BTreeMap::new();
    for pod in pods {
        let component = pod.metadata.labels.as_ref().and_then(|labels| labels.get(COMPONENT));
        if let (Some(component), Some(trouble)) = (component, trouble_of(pod)) {
            let known = worst.entry(component.clone()).or_insert_with(|| trouble.clone());
            if trouble < *known {
                *known = trouble;
            }
        }
    }
    worst
}

/// Why the last try of a Job failed: the message that its newest failed container left.
pub fn last_failure<'a>(pods: impl Iterator<Item = &'a Pod>) -> Option<String> {
    let ended = pods.flat_map(containers).filter_map(|status| {
        let ended = [&status.state, &status.last_state]
            .into_iter()
            .flatten()
            .find_map(|state| state.terminated.as_ref().filter(|ended| ended.exit_code != 0))?;
        Some((
            ended.finished_at.as_ref().map(|at| at.0),
            ended.exit_code,
            ended.message.clone(),
        ))
    });
    ended
        .max_by_key(|(at, ..)| *at)
        .map(|(_, code, message)| match message.as_deref().map(str::trim) {
            Some(message) if !message.is_empty() => shorten(message),
            _ => format!("it ended with exit code {code}"),
        })
}

/// What the newest container that ended well left as its termination message, such as a Job's report.
pub fn last_report<'a>(pods: impl Iterator<Item = &'a Pod>) -> Option<String> {
    let ended = pods.flat_map(containers).filter_map(|status| {
        let ended = status
            .state
            .as_ref()?
            .terminated
            .as_ref()
            .filter(|ended| ended.exit_code == 0)?;
        let said = ended
            .message
            .as_deref()
            .map(str::trim)
            .filter(|said| !said.is_empty())?;
        Some((ended.finished_at.as_ref().map(|at| at.0), said))
    });
    ended.max_by_key(|(at, _)| *at).map(|(_, said)| brief(said))
}

/// Makes the message of a refused pod independent of the pod's random name.
pub fn refusal(message: &str) -> String {
    let cause = message.split_once("is forbidden: ").map_or(message, |(_, cause)| cause);
    shorten(cause)
}

/// What a component's programs said about their version, in the termination message of an init container named `version`.
pub fn version(pods: &[Pod], component: &str) -> Option<String> {
    let of_component = pods.iter().filter(|pod| {
        pod.metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(COMPONENT))
            .is_some_and(|c| c == component)
    });
    let mut said: Vec<String> = of_component
        .flat_map(containers)
        .filter(|status| status.name == "version")
        .filter_map(|status| {
            status
                .state
                .as_ref()?
                .terminated
                .as_ref()?
                .message
                .as_deref()
                .map(shorten)
        })
        .filter(|message| !message.is_empty())
        .collect();
    // While pods roll there are two; the same one is told each time.
    said.sort_unstable();
    said.into_iter().next().map(|text| brief(&text))
}

/// As much as the status takes of a version.
fn brief(text: &str) -> String {
    shorten(text).chars().take(128).collect()
}

/// At most 600 characters, on one line.
pub fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn trouble_of(pod: &Pod) -> Option<Trouble> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    containers(pod)
        .filter_map(container_trouble)
        .chain(unschedulable(pod))
        .min()
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status
        .and_then(|status| status.init_container_statuses.as_deref())
        .unwrap_or_default();
    let main = status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    init.iter().chain(main)
}

fn container_trouble(status: &ContainerStatus) -> Option<Trouble> {
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waiting
        .and_then(|waiting| waiting.reason.as_deref())
        .unwrap_or_default();
    match reason {
        // The kubelet's own text changes between the tries; the image's name does not.
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" | "ErrImageInspect" => {
            Some(Trouble {
                cause: Cause::ImageCannotBePulled,
                message: format!("Image {} of container {} cannot be pulled.", status.image, status.name),
            })
        }
        "CreateContainerConfigError" | "CreateContainerError" => Some(Trouble {
            cause: Cause::ConfigurationMissing,
            message: format!(
                "Container {} cannot be created: {}",
                status.name,
                shorten(
                    waiting
                        .and_then(|waiting| waiting.message.as_deref())
                        .unwrap_or("no cause given")
                )
            ),
        }),
        _ => crash_loop(status, reason),
    }
}

/// A container that ended badly more than once and does not serve: it counts while it runs again too, or the condition would flap.
fn crash_loop(status: &ContainerStatus, waiting_for: &str) -> Option<Trouble> {
    let ended = [&status.last_state, &status.state]
        .into_iter()
        .flatten()
        .find_map(|state| state.terminated.as_ref())?;
    let foreign = ended.exit_code == FOREIGN_DATA_EXIT_CODE && !status.ready;
    let loops = waiting_for == "CrashLoopBackOff" || (status.restart_count >= 2 && !status.ready);
    if ended.exit_code == 0 || !(foreign || loops) {
        return None;
    }
    let cause = match ended.message.as_deref().map(str::trim) {
        Some(message) if !message.is_empty() => shorten(message),
        _ => ended.reason.clone().unwrap_or_else(|| "no message".to_owned()),
    };
    if ended.exit_code == FOREIGN_DATA_EXIT_CODE {
        return Some(Trouble {
            cause: Cause::ForeignData,
            message: cause,
        });
    }
    Some(Trouble {
        cause: Cause::CrashLoop,
        message: format!(
            "Container {} keeps ending with exit code {}: {cause}",
            status.name, ended.exit_code
        ),
    })
}

fn unschedulable(pod: &Pod) -> Option<Trouble> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    if condition.reason.as_deref() != Some("Unschedulable") {
        return None;
    }
    Some(Trouble {
        cause: Cause::Unschedulable,
        message: format!(
            "No node takes the pod: {}",
            shorten(condition.message.as_deref().unwrap_or("no cause given"))
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "shop-api-7d9c-x2", "labels": {COMPONENT: "api"}}, "status": status,
        }))
        .unwrap()
    }

    fn container(state: &Value, last: &Value, restarts: i32) -> Value {
        json!({"containerStatuses": [{
            "name": "api", "image": "registry.example/platform:9", "imageID": "", "ready": false,
            "restartCount": restarts, "state": state, "lastState": last,
        }]})
    }

    #[test]
    fn both_states_of_a_failing_pull_give_the_same_words() {
        for reason in ["ErrImagePull", "ImagePullBackOff"] {
            let status = container(
                &json!({"waiting": {"reason": reason, "message": "changes with each try"}}),
                &json!({}),
                0,
            );
            let found = troubles(&[pod(&status)]);
            assert_eq!(found["api"].cause, Cause::ImageCannotBePulled);
            assert_eq!(
                found["api"].message,
                "Image registry.example/platform:9 of container api cannot be pulled."
            );
        }
    }

    #[test]
    fn a_crash_loop_says_its_last_words_also_while_it_runs_again() {
        let last = json!({"terminated": {"exitCode": 2, "message": "cannot read\n the settings"}});
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let running = json!({"running": {}});
        for state in [&waiting, &running] {
            let found = troubles(&[pod(&container(state, &last, 3))]);
            assert_eq!(
                found["api"].message,
                "Container api keeps ending with exit code 2: cannot read the settings"
            );
        }
        assert!(troubles(&[pod(&container(&running, &last, 1))]).is_empty());
    }

    #[test]
    fn an_unschedulable_pod_says_what_the_scheduler_said() {
        let status = json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}
        ]});
        assert_eq!(
            troubles(&[pod(&status)])["api"].message,
            "No node takes the pod: 0/1 nodes are available: 1 Insufficient cpu."
        );
    }

    #[test]
    fn a_refused_pod_is_not_called_by_its_random_name() {
        let message = r#"pods "shop-api-7d9c-x2" is forbidden: exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4"#;
        assert_eq!(
            refusal(message),
            "exceeded quota: small, requested: pods=1, used: pods=4, limited: pods=4"
        );
    }

    #[test]
    fn the_newest_failure_of_a_job_is_the_one_that_is_told() {
        let ended = |at: &str, message: &str| {
            pod(&container(
                &json!({"terminated": {"exitCode": 1, "finishedAt": at, "message": message}}),
                &json!({}),
                0,
            ))
        };
        let pods = [
            ended("2026-01-01T00:00:02Z", "newer"),
            ended("2026-01-01T00:00:01Z", "older"),
        ];
        assert_eq!(last_failure(pods.iter()).unwrap(), "newer");
    }

    #[test]
    fn a_job_that_ended_well_is_heard_and_one_that_failed_is_not() {
        let ended = |code: i32, message: &str| {
            pod(&container(
                &json!({"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:01Z", "message": message}}),
                &json!({}),
                0,
            ))
        };
        let pods = [ended(1, "no route"), ended(0, "17.6 (Debian 17.6-1)\n"), ended(0, "")];
        assert_eq!(last_report(pods.iter()).unwrap(), "17.6 (Debian 17.6-1)");
        assert_eq!(last_report([ended(1, "no route")].iter()), None);
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        assert_eq!(shorten(&"ä".repeat(601)).chars().count(), 601);
        assert_eq!(shorten("a\n b"), "a b");
    }
}
